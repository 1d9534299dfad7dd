"""A run directory from elsewhere may hold links: nothing outside of it is read as part of it, or changed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tying_agents.running.runner import resume
from tying_agents.running.saved import DamagedRun

from tests.conftest import TINY
from tests.reliability.attacks import redescribe, reseal, restated
from tests.reliability.runs import Watcher, contents, small, stop_at_five
from tying_env.runs import RunDirectory


@pytest.fixture(scope="module")
def stopped_once(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("links") / "run"
    return stop_at_five(small(TINY | {"dataset": str(text_folder)}, path, "ppo"))


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped_once, tmp_path / "stopped")


NAMES = ("trace.txt", "metrics.jsonl", "journal.jsonl", "resumes.jsonl", "config.json", "lock", "summary.json")


@pytest.mark.parametrize("name", [*NAMES, "best.safetensors", "final.safetensors", "replication_map.png"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_link_in_place_of_a_file_is_refused(stopped: Path, tmp_path: Path, name: str, fresh: bool) -> None:
    victim = tmp_path / "victim"
    shutil.copy(stopped / name, victim) if (stopped / name).exists() else victim.write_text("precious\n" * 100)
    (stopped / name).unlink(missing_ok=True)
    (stopped / name).symlink_to(victim)
    if fresh:  # a run that starts over empties its logs
        shutil.rmtree(stopped / "checkpoints")
    before = victim.read_bytes()
    with pytest.raises(DamagedRun, match=f"{name} is not a plain file"):
        resume(stopped, [Watcher()])
    assert victim.read_bytes() == before


def test_a_link_in_place_of_the_checkpoints_is_refused(stopped: Path, tmp_path: Path) -> None:
    (stopped / "checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "unfinished-000009").mkdir()
    (stopped / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedRun, match="checkpoints is not a plain folder"):
        resume(stopped, [Watcher()])
    assert (tmp_path / "elsewhere" / "unfinished-000009").exists()


def test_a_link_that_comes_later_is_not_followed(tmp_path: Path) -> None:
    directory, victim = RunDirectory.create(tmp_path / "run", {}), tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run" / "trace.txt").symlink_to(victim)
    for change in (lambda: directory.append("trace.txt", "more"), lambda: directory.shorten("trace.txt", 3)):
        with pytest.raises(OSError, match=r"symbolic links.*trace\.txt"):
            change()
    assert victim.read_text() == "precious"


def link_a_checkpoint(folder: Path) -> None:
    folder.rename(folder.parents[2] / "elsewhere")
    folder.symlink_to(folder.parents[2] / "elsewhere")


def add_a_network(folder: Path) -> None:
    (folder / "best.safetensors").unlink()
    reseal(folder, lambda m: m["files"].pop("best.safetensors"))
    (folder / "best.safetensors").symlink_to(folder.parents[2] / "victim")


ADDED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a linked checkpoint": (link_a_checkpoint, "not a plain folder"),
    "a network that the manifest does not name": (add_a_network, "best.safetensors is missing, or its manifest"),
    "a file more": (lambda folder: (folder / "x").write_text(""), "x is missing, or its manifest does not name it"),
}


@pytest.mark.parametrize("what", ADDED)
def test_a_checkpoint_is_what_its_manifest_names(stopped: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "victim").write_text("secret")
    for folder in sorted((stopped / "checkpoints").iterdir())[:-1]:
        shutil.rmtree(folder)
    (newest,) = (stopped / "checkpoints").iterdir()
    change, message = ADDED[what]
    change(newest)
    before = contents(stopped)
    with pytest.raises(DamagedRun, match=message):
        resume(stopped, [Watcher()])
    assert contents(stopped) == before


def relogged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the journal, and let the manifest say of it what it is now."""

    def damage(folder: Path) -> None:
        journal = folder.parents[1] / "journal.jsonl"
        journal.write_bytes(data := change(journal.read_bytes()))
        described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        reseal(folder, lambda manifest: manifest["logs"].update({"journal.jsonl": described}))

    return damage


def log(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: reseal(folder, lambda manifest: manifest["logs"]["metrics.jsonl"].update(changes))


def recorder(**changes: Any) -> Callable[[Path], None]:
    return restated(lambda state: state["recorder"].update(changes))


def env(**changes: Any) -> Callable[[Path], None]:
    return restated(lambda state: state["env"].update(changes))


def infinite_seconds(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["recorder"]["seconds"] = "SECONDS"
    (folder / "state.json").write_text(json.dumps(state).replace('"SECONDS"', "NaN"))
    redescribe(folder, "state.json")


OBSERVATION = b'"observation": [0, 0, 0, 0]'

SEALED: dict[str, Callable[[Path], None]] = {
    "no logs": lambda folder: reseal(folder, lambda m: m.update(logs={})),
    "logs that are a list": lambda folder: reseal(folder, lambda m: m.update(logs=[])),
    "another log": lambda folder: reseal(folder, lambda m: m["logs"].update(x=m["logs"]["trace.txt"])),
    "a log of less than nothing": log(bytes=-1, sha256=hashlib.sha256().hexdigest()),
    "a log of true bytes": log(bytes=True),
    "no episode": lambda folder: reseal(folder, lambda m: m.pop("episode")),
    "a validation that is text": lambda folder: reseal(folder, lambda m: m.update(validation_perplexity="x")),
    "seconds beyond all numbers": recorder(seconds=10**400),
    "seconds that are no number": infinite_seconds,
    "tokens beyond all numbers": recorder(tokens=10**400),
    "an episode too many": recorder(episode=99),
    "more decisions than there are": recorder(decision=10**6),
    "less decisions than in the journal": recorder(decision=1),
    "a frozen start without end": env(frozen_steps_left=10**12),
    "a training step beyond the last": env(train_step=10**9),
    "a tying applied after the end": env(tied_at=10**9),
    "decisions beyond the last step": env(decisions=10**9),
    "a journal line that is a number": relogged(lambda old: b"5\n" + old),
    "a journal of absurd depth": relogged(lambda old: b"[" * 100_000 + b"\n" + old),
    "a journal that is not UTF-8": relogged(lambda old: b"\xff" + old),
    "an observation that is text": relogged(lambda old: old.replace(OBSERVATION, b'"observation": "x"', 1)),
    "an observation outside the space": relogged(
        lambda old: old.replace(OBSERVATION, b'"observation": [7, 0, 0, 0]', 1)
    ),
    "an observation of another length": relogged(lambda old: old.replace(OBSERVATION, b'"observation": [0]', 1)),
    "an observation beyond all numbers": relogged(
        lambda old: old.replace(OBSERVATION, b'"observation": [%d, 0, 0, 0]' % 10**30, 1)
    ),
    "a reward that is nothing": relogged(lambda old: old.replace(b'"reward": ', b'"reward": null, "was": ', 1)),
    "an end that is a number": relogged(lambda old: old.replace(b'"terminated": false', b'"terminated": 0', 1)),
    "a journal that is cut off": relogged(lambda old: b"".join(old.splitlines(keepends=True)[:-2])),
}


@pytest.mark.parametrize("attack", SEALED)
def test_a_checkpoint_that_was_sealed_again_is_refused_and_no_log_is_shortened(stopped: Path, attack: str) -> None:
    for folder in sorted((stopped / "checkpoints").iterdir())[:-1]:
        shutil.rmtree(folder)
    (newest,) = (stopped / "checkpoints").iterdir()
    SEALED[attack](newest)
    for name in ("metrics.jsonl", "trace.txt"):  # what came after the checkpoint
        with open(stopped / name, "a") as file:
            file.write("more\n")
    before = contents(stopped)
    with pytest.raises(ValueError, match=r"checkpoint") as caught:
        resume(stopped, [Watcher()])
    assert str(stopped) in str(caught.value)
    assert contents(stopped) == before


def test_masks_of_a_journal_are_checked(tiny: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run"
    stop_at_five(small(tiny, path, "maskable-ppo"))
    for folder in (path / "checkpoints").iterdir():
        relogged(lambda old: old.replace(b'"masks": [true, ', b'"masks": [1, ', 1))(folder)
    with pytest.raises(ValueError, match=r"journal.jsonl line 1 is damaged: masks must be 4 times true or false"):
        resume(path, [Watcher()])
