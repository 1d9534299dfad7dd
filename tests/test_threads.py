"""How many CPU threads a run computes with."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tying_agents.commands import SHORT_WAITS, finetune, pretrain, start
from tying_agents.commands import run as command
from tying_agents.downstream import finetuning
from tying_agents.many.stoppable import call_until_stopped
from tying_agents.run_config import RunConfig
from tying_agents.running import threads
from tying_agents.running.threads import set_threads

from tests.conftest import TINY
from tests.tables import made_up_table, written
from tests.tiny_runs import tiny_run
from tying_env import EnvConfig


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def config(text_folder: Path, **settings: Any) -> RunConfig:
    small = {"n_layer": 2, "n_embd": 4, "n_head": 1, "dataset": str(text_folder)}
    return RunConfig("random", env=EnvConfig(**TINY | small | settings))


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({4: 1.0, 2: 2.0, 1: 4.0}, 4),
        ({4: 9.0, 2: 1.0, 1: 3.0}, 2),
        ({4: 9.0, 2: 5.0, 1: 3.0}, 1),
        ({4: 0.95, 2: 0.98, 1: 1.0}, 1),  # too little to choose by
    ],
    ids=str,
)
def test_auto_takes_what_is_fastest(
    text_folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], best: int
) -> None:
    clock, torch_makes = [0.0], threads.make_env
    torch.set_num_threads(4)

    def timed(config: RunConfig) -> Any:
        env = torch_makes(config)
        step = env.step

        def slowly(action: Any) -> Any:
            clock[0] += seconds[torch.get_num_threads()]
            return step(action)

        monkeypatch.setattr(env, "step", slowly)
        return env

    monkeypatch.setattr(threads, "make_env", timed)
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    notes: list[str] = []
    set_threads("auto", config(text_folder, total_steps=40), None, notes.append)
    assert torch.get_num_threads() == best
    assert notes[0].startswith(f"CPU threads: {best}. A training step took {seconds[best]:.3g} s, and ")


def test_the_command_takes_a_number_and_writes_it_down(text_folder: Path, tmp_path: Path) -> None:
    tiny = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if not isinstance(value, bool)]
    path = tmp_path / "run"
    words = [*tiny, f"--dataset={text_folder}", "--agent=random", "--no-measure-test", f"--run-dir={path}"]
    assert command.main([*words, "--total-steps=4", "--warmup-steps=1", "--threads=3"]) == 0
    assert json.loads((path / "config.json").read_text())["threads"] == 3


def test_a_resumed_run_computes_as_it_did(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = json.loads((tiny_run(tmp_path / "run", text_folder) / "config.json").read_text()) | {"threads": 2}
    set_threads(None, config(text_folder), about, print)
    assert torch.get_num_threads() == 1  # OMP_NUM_THREADS is there, and somebody's wish
    monkeypatch.delenv("OMP_NUM_THREADS")
    set_threads(3, config(text_folder), about, print)
    assert torch.get_num_threads() == 3
    set_threads(None, config(text_folder), about, print)
    assert torch.get_num_threads() == 2


def test_what_cannot_be_measured_is_refused(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = threads.world()._replace(size=2)
    monkeypatch.setattr(threads, "world", lambda: world)
    with pytest.raises(ValueError, match="threads='auto' measures one process on the CPU, got 2 and cpu"):
        set_threads("auto", config(text_folder), None, print)


def test_no_threads_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--agent=random", "--threads=0"]) == 1
    assert "--threads must be auto or at least 1, got 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "wsd", "wsd_decay_share": 0.3, "warmup_steps": 4},
        {"schedule": "cosine", "min_lr_ratio": 0.2},
        {"units": "sublayers", "frozen_weights": "redrawn"},
    ],
    ids=str,
)
def test_any_settings_can_be_measured(text_folder: Path, settings: dict[str, Any]) -> None:
    torch.set_num_threads(2)
    notes: list[str] = []
    set_threads("auto", config(text_folder, total_steps=40, **settings), None, notes.append)
    assert re.fullmatch(r"CPU threads: [12]\. A training step took .* s, and .* s on [12]\.", notes[0])


def test_a_run_that_is_too_short_to_measure_keeps_torchs_choice(text_folder: Path) -> None:
    torch.set_num_threads(4)
    notes: list[str] = []
    set_threads("auto", config(text_folder, total_steps=3), None, notes.append)
    assert torch.get_num_threads() == 4
    assert notes == ["CPU threads: 4, torch's own choice. The run is too short to measure others."]


def note_threads(path: Path) -> None:
    path.write_text(str(torch.get_num_threads()))


@pytest.mark.parametrize("jobs", [1, 2])
def test_many_calls_compute_on_as_many_as_is_said(jobs: int, tmp_path: Path) -> None:
    torch.set_num_threads(4)
    paths = [tmp_path / "a", tmp_path / "b"]
    call_until_stopped(note_threads, [(path,) for path in paths], tmp_path, print, print, jobs=jobs, threads=3)
    assert [path.read_text() for path in paths] == ["3", "3"]
    assert torch.get_num_threads() == 4  # the caller's are as they were


@pytest.mark.parametrize(("words", "wanted"), [([], 1), (["--threads=3"], 3)], ids=str)
def test_pretraining_and_finetuning_compute_on_one_or_as_many_as_is_said(
    words: list[str], wanted: int, glue: Path, tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()

    def spied(function: Any) -> Any:
        def noting(*arguments: Any, **named: Any) -> Any:
            seen.add(torch.get_num_threads())
            return function(*arguments, **named)

        return noting

    run = tiny_run(tmp_path / "run", text_folder)
    torch.set_num_threads(4)
    monkeypatch.setattr(torch.optim.Adam, "step", spied(torch.optim.Adam.step))
    monkeypatch.setattr(finetuning, "tune", spied(finetuning.tune))
    table = f"--table={written(tmp_path, made_up_table())}"
    assert pretrain.main([table, "--updates=1", "--members=1", f"--out={tmp_path / 'values.npz'}", *words]) == 0
    assert seen == {wanted}
    seen.clear()
    common = ["--task=sst2", f"--data={glue}", "--epochs=1", "--seeds=1", "--methods=head", "--network=final"]
    assert finetune.main([str(run), *common, *words]) == 0
    assert seen == {wanted}
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    "said", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "7"}], ids=str
)
def test_waiting_threads_soon_sleep_where_nobody_has_said_how_they_wait(
    said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", *SHORT_WAITS):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert start("completion", ["bash"]) == 0
    names = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    found = {name: value for name, value in os.environ.items() if name in names}
    assert found == (said or {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"})
