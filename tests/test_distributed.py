"""One run on several processes: gloo, two of them; torchrun itself starts them where it passes a signal on."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run as run_here
from tying_agents.stopping import StopSignals

from tests.command_line import called
from tests.started import Started, code, script
from tying_env import EnvConfig
from tying_env.distributed import World
from tying_env.env import LayerTyingEnv
from tying_env.runs import RunDirectory, load_network
from tying_env.seeding import stream_of, torch_stream

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_agent.py"


def options(tiny: dict[str, Any], folder: Path, **more: Any) -> list[str]:
    settings = tiny | {"batch_size": 8, "dropout": 0.0, "run_dir": folder} | more
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def torchrun(processes: int, arguments: list[str]) -> Started:
    """Start torchrun; it starts interpreters, as it does for users."""
    options = ["--nproc-per-node", str(processes), "--master-port", "0"]
    options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    text = "import sys; from torch.distributed.run import main; main(sys.argv[1:])"
    return code(text, *options, str(SCRIPT), *arguments)


def pair(arguments: list[str]) -> list[Started]:
    """Start the two processes that torchrun would start, without torchrun."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    processes = []
    for rank in "01":
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        with mock.patch.dict(os.environ, common | ranks):
            processes.append(script("run_agent.py", *arguments))
    return processes


def finished(run: Started) -> str:
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    return output


# AdamW is in the run that continues, below, and in Muon's, which leaves it what is no matrix of a block.
@pytest.fixture(scope="module", params=[("block", "muon"), ("sublayers", "sgd")], ids="-".join)
def two_and_one(
    request: pytest.FixtureRequest, text_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDirectory, RunDirectory, str]:
    """The same run of two processes and of one, and what the two printed."""
    from tests.conftest import TINY

    folder, tiny = tmp_path_factory.mktemp("processes"), TINY | {"dataset": str(text_folder)}
    more: dict[str, Any] = {"agent": "random", "gradient": "leader", "schedule": "cosine", "warmup_steps": 5}
    more["units"], more["optimizer"] = request.param
    more |= {"learning_rate": 0.2, "momentum": 0.9} if more["optimizer"] == "sgd" else {}
    output = "".join(finished(process) for process in pair(options(tiny, folder / "two", **more)))
    alone = called("run", *options(tiny, folder / "one", **more))
    assert alone.returncode == 0, alone.stdout
    return RunDirectory(folder / "two"), RunDirectory(folder / "one"), output


def test_two_processes_train_as_one_does_on_both_shares(two_and_one: Any) -> None:
    two, one, _ = two_and_one
    records = list(zip(two.read_metrics(), one.read_metrics(), strict=True))
    assert len(records) == 9
    for ours, reference in records:
        assert ours["tying"] == reference["tying"]
        assert ours["learning_rate"] == reference["learning_rate"]
        for name in ("train_loss", "gradient_norm", "reward", "validation_perplexity", "tokens"):
            assert ours[name] == pytest.approx(reference[name], rel=1e-4, nan_ok=True), name
    ours, reference = (load_network(directory.path / "final.safetensors").network.model for directory in (two, one))
    for (name, p), (_, expected) in zip(ours.named_parameters(), reference.named_parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-2, atol=2e-4, msg=name)
    assert len({record["learning_rate"] for record in two.read_metrics()}) > 5


def test_gradients_travel_for_leaders_only_and_their_bytes_are_shown(two_and_one: Any) -> None:
    two, one, output = two_and_one
    for record in two.read_metrics():
        assert record["exchanged_bytes"] == 4 * record["trainable_parameters"]
    assert len({record["exchanged_bytes"] for record in two.read_metrics()}) > 1
    assert "gradients between processes" in output
    assert not any("exchanged_bytes" in record for record in one.read_metrics())


def test_only_the_first_process_writes_and_prints(two_and_one: Any) -> None:
    two, one, output = two_and_one
    assert output.count("best validation perplexity") == 1
    assert sorted(path.name for path in two.path.parent.iterdir()) == ["one", "two"]
    assert {path.name for path in two.path.iterdir() if path.is_file() and "tfevents" not in path.name} == {
        path.name for path in one.path.iterdir() if path.is_file() and "tfevents" not in path.name
    }


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def wait_for_a_decision(settings: list[str]) -> RunDirectory:
    directory = RunDirectory(Path(settings[settings.index("--run-dir") + 1]))
    deadline = time.monotonic() + 150
    while not directory.read_metrics() and time.monotonic() < deadline:
        time.sleep(0.02)
    return directory


def signalled(settings: list[str], number: signal.Signals) -> tuple[str, int, RunDirectory]:
    """Send a signal to the second of torchrun's processes, once a decision is made; return what came of the run."""
    run = torchrun(2, settings)
    try:
        directory = wait_for_a_decision(settings)
        workers = children(run.pid)
        assert len(workers) == 2, workers
        ranks = {
            dict(line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in line)[
                "RANK"
            ]: pid
            for pid in workers
        }
        os.kill(ranks["1"], number)
        output, _ = run.communicate(timeout=100)
    finally:
        run.send_signal(signal.SIGKILL)
    assert run.returncode is not None
    return output, run.returncode, directory


def test_a_process_that_dies_ends_the_run_with_a_clear_error(tiny: dict[str, Any], tmp_path: Path) -> None:
    settings = options(tiny, tmp_path / "run", agent="random", total_steps=100_000)
    first, second = pair(settings)
    run = wait_for_a_decision(settings)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    output, _ = first.communicate()  # which nobody ends: torchrun, which would, is not there
    assert first.returncode not in (None, 0)
    assert "lost contact with another process of this run" in output
    assert run.read_metrics()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through Linux's /proc")
def test_a_signal_to_any_process_ends_the_run_with_a_checkpoint(tiny: dict[str, Any], tmp_path: Path) -> None:
    settings = options(tiny, tmp_path / "run", agent="random", total_steps=100_000, checkpoint_every=0)
    output, code, run = signalled(settings, signal.SIGTERM)
    assert code != 0
    assert run.read_json("summary.json")["status"] in ("stopped", "terminated"), output  # torchrun passes it on
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["000001"]
    assert "lost contact" not in output


def test_a_run_continues_with_another_number_of_processes(tiny: dict[str, Any], tmp_path: Path) -> None:
    whole = called("run", *options(tiny, tmp_path / "whole", agent="random"))
    assert whole.returncode == 0, whole.stdout
    stopped, questions = tmp_path / "stopped", iter(range(100))

    def stop_later(self: StopSignals) -> bool:
        self.asked = signal.SIGINT if next(questions) > 9 else None
        return self.asked is not None

    config = RunConfig("random", run_dir=stopped, env=EnvConfig(**tiny | {"batch_size": 8, "dropout": 0.0}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, "should_stop", stop_later)
        assert run_here(config)[1] == "interrupted"
    assert 0 < len(RunDirectory(stopped).read_metrics()) < 9
    for process in pair(["--resume", str(stopped)]):
        finished(process)
    records = zip(RunDirectory(stopped).read_metrics(), RunDirectory(tmp_path / "whole").read_metrics(), strict=True)
    for ours, reference in records:
        assert ours["tying"] == reference["tying"]
        assert ours["reward"] == pytest.approx(reference["reward"], rel=1e-4)


def test_only_the_first_process_measures_the_test_split(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tying_agents.running.runner.world", lambda: World(1, 2))
    directory, status = run_here(RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**tiny)))
    assert (status, directory.read_json("summary.json")["test"]) == ("finished", None)


def test_shares_cover_a_batch_and_streams_differ() -> None:
    rows = [list(range(10))[World(rank, 3).share(10)] for rank in range(3)]
    assert [row for share in rows for row in share] == list(range(10))
    masters = [torch_stream(0, "dropout") for _ in range(2)]
    streams = [stream_of(rank, 2, master) for rank, master in enumerate(masters)]
    assert torch.equal(masters[0].get_state(), masters[1].get_state())
    assert not torch.equal(torch.rand(4, generator=streams[0]), torch.rand(4, generator=streams[1]))
    assert stream_of(0, 1, masters[0]) is masters[0]


def test_a_batch_that_cannot_be_shared_is_refused(tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="accumulate must divide batch_size, got accumulate=3 and batch_size=4"):
        LayerTyingEnv(**tiny | {"accumulate": 3})
