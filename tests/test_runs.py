import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.started import code
from tying_env.env import LayerTyingEnv
from tying_env.files import to_json, written_whole
from tying_env.runs import RunDirectory, load_network, save_network
from tying_env.runs.network_file import _seal


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with written_whole(path) as unfinished:
        unfinished.write_text("one")
    with pytest.raises(RuntimeError), written_whole(path) as unfinished:
        unfinished.write_text("tw")
        raise RuntimeError
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_word_that_json_lacks() -> None:
    value = {"a": np.array([1, 2]), "b": np.float64(0.5), "c": float("inf"), "d": [float("nan")], "e": Path("x")}
    assert json.loads(to_json(value)) == {"a": [1, 2], "b": 0.5, "c": None, "d": [None], "e": "x"}


def test_a_run_directory_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("results")
    with pytest.raises(FileExistsError, match=r"run exists already"):
        RunDirectory.create(tmp_path / "run", {})
    assert (tmp_path / "run" / "precious").read_text() == "results"
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        RunDirectory.open(tmp_path / "run")


def test_a_line_of_metrics_that_a_crash_cut_off_does_not_count(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", {})
    directory.append_json("metrics.jsonl", {"decision": 1})
    directory.append("metrics.jsonl", '{"decision": 2, "rew')
    assert directory.read_metrics() == [{"decision": 1}]


def test_a_json_file_that_holds_no_object_is_refused_by_name(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", {})
    (tmp_path / "run" / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"config\.json must hold an object, got \[1, 2\]"):
        directory.read_json("config.json")


# A real write that fails: the system refuses to let a file of this process grow further.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tying_env.runs import RunDirectory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = RunDirectory.create(Path(sys.argv[1]), {"seed": 0})
run.append_json("metrics.jsonl", {"decision": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))
for write in (lambda: run.append_json("metrics.jsonl", {"decision": 2, "text": "x" * 50}),
              lambda: run.write_json("config.json", {"seed": 1, "text": "x" * 50})):
    try:
        write()
    except OSError as error:
        print(error)
"""


def test_a_full_disk_is_named_and_earlier_files_stay_whole(tmp_path: Path) -> None:
    first, second = code(FULL_DISK, tmp_path / "run").communicate()[0].splitlines()
    assert first.startswith("[Errno 27]")
    assert "metrics.jsonl" in first
    assert "config.json" in second
    run = RunDirectory.open(tmp_path / "run")
    assert run.read_metrics() == [{"decision": 1}]
    assert run.read_json("config.json") == {"seed": 0}
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "metrics.jsonl"]


@pytest.mark.parametrize("gradient", ["shared", "leader"])
@pytest.mark.parametrize("tying", [None, [0, 0, 2, 0], [0, 1, 2, 3]])
def test_a_network_comes_back_from_its_file_with_its_tying(
    tmp_path: Path, tiny: dict[str, Any], gradient: str, tying: list[int] | None
) -> None:
    env = LayerTyingEnv(**tiny | {"gradient": gradient})
    env.reset(seed=0, options=None if tying is None else {"tying": tying})
    env.trainer.train(2)
    path = tmp_path / "network.safetensors"
    save_network(path, env.trainer, env.config, env.workload.sizes)
    unique = sum(p.numel() for _, p in env.trainer.named_parameters())
    assert 0 <= path.stat().st_size - 4 * unique < 8000  # every weight once, and a header
    saved = load_network(path)
    assert saved.tying == env.trainer.tied.tying.tolist()
    assert saved.tied.tying.tolist() == ([0, 1, 2, 3] if tying is None else tying)
    assert saved.config == env.config
    windows = torch.from_numpy(env.windows("test", 2).astype(np.int64))
    losses = [env.trainer.task.loss(m.eval(), windows) for m in (saved.network.model, env.trainer.network.model)]
    assert torch.equal(*losses)
    if tying == [0, 0, 2, 0]:
        weight = "attn.c_attn.weight"
        blocks = saved.network.blocks
        assert blocks[3].get_parameter(weight).data_ptr() == blocks[0].get_parameter(weight).data_ptr()


def test_files_that_are_no_networks_are_refused(tmp_path: Path, env: LayerTyingEnv) -> None:
    with pytest.raises(FileNotFoundError, match="no network file"):
        load_network(tmp_path / "missing")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"garbage" * 100)
    with pytest.raises(ValueError, match="garbage is not a network file"):
        load_network(garbage)
    foreign = tmp_path / "foreign"
    save_file({"a": torch.ones(2)}, foreign)
    with pytest.raises(ValueError, match=r"foreign is not a network file .* its format is None"):
        load_network(foreign)
    env.reset(seed=0)
    network = tmp_path / "network"
    save_network(network, env.trainer, env.config, env.workload.sizes)
    network.write_bytes(network.read_bytes()[:-5])
    with pytest.raises(ValueError, match="damaged"):
        load_network(network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {"vocab_size": 10**13}}, r"ask for 'transformer.wte.weight' of shape \(10000000000000, 16\)"),
        ({"sizes": {"vocab_size": 10**30}}, "does not hold"),
        ({"sizes": {"vocab_size": -5}}, "vocab_size must be a whole number above 0, got -5"),
        ({"sizes": {"vocab_size": "256"}}, "vocab_size must be a whole number above 0, got '256'"),
        ({"sizes": {}}, "does not hold"),
        ({"sizes": 3}, "does not hold"),
        ({"sources": [0, 0]}, "does not hold"),
        ({"sources": [0, 1, 1, 1], "tying": [0, 1, 1, 1]}, "unexpected tensor|lacks the tensor"),
        ({"sources": [0, 1, 1, 2]}, "canonical"),
        ({"tying": ["<script>", 9]}, "does not hold"),
        ({"config": "x"}, "does not hold"),
        ({"config": {"n_layers": 3}}, "does not hold"),
        ({"format": "network 1"}, "its format is 'network 1'"),
    ],
)
def test_network_files_that_lie_about_themselves_are_refused(
    tmp_path: Path, env: LayerTyingEnv, change: dict[str, Any], message: str
) -> None:
    env.reset(seed=0, options={"tying": [0, 0, 2, 0]})
    path = tmp_path / "network"
    save_network(path, env.trainer, env.config, env.workload.sizes)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["tying_env"])
    del about["sha256"]
    lying = about | change  # by somebody who knows how such a file is sealed
    save_file(tensors, path, metadata={"tying_env": json.dumps(lying | {"sha256": _seal(lying, tensors)})})
    with pytest.raises(ValueError, match=message):
        load_network(path)
    for text in ("[]", "3", "[" * 100_000, "{"):
        save_file(tensors, path, metadata={"tying_env": text})
        with pytest.raises(ValueError, match="not a network file"):
            load_network(path)
    other = {name: t.double() for name, t in tensors.items()}
    save_file(other, path, metadata={"tying_env": json.dumps(about | {"sha256": _seal(about, other)})})
    with pytest.raises(ValueError, match="float64"):
        load_network(path)
