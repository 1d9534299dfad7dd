"""Sweeps that are stopped, killed or made by several processes at once end like those that were not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from tying_agents.commands.tune import main as tune
from tying_agents.many.tuning import study as studies
from tying_agents.many.tuning.plan import Sweep
from tying_agents.many.tuning.search import parse_searches
from tying_agents.many.tuning.study import claim, opened

from tests.started import Started, script
from tests.sweeps import RATES, base, options, trials_of


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a line of output be one."""
    monkeypatch.setenv("COLUMNS", "160")


def begin(arguments: list[str]) -> Started:
    return script("tune.py", *arguments, new_session=True)


def wait_for(process: Started, there: Any) -> None:
    for _ in range(1200):
        if there():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("it did not come so far")


def results(out: Path) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.value, t.params, t.intermediate_values) for t in trials_of(out)]


def metrics(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.glob("trials/*/*/metrics.jsonl"))}


STOPPED = ["--search", RATES, "epsilon-floor: 0..0.3", "--trials", "3", "--seeds", "2", "--pruner", "none"]
# So long that validation perplexity rises again after the stop: a best that is forgotten makes a difference.
LONGER = ["--total-steps", "20", "--checkpoint-every", "2"]
# The run in whose midst the sweep is stopped waits for that, once it has a checkpoint: until it is killed, or told.
WAITING = """
import time
from tying_agents import Callback

class Waiting(Callback):
    def decision_made(self, loop, record):
        if record["decision"] == 5 and "trials/0001/seed1001" in str(loop.directory):
            while not list(loop.directory.parents[2].glob("stop-*")):
                time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def whole(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep as it is when nothing stops it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert tune([*STOPPED, *options(out, text_folder), *LONGER]) == 0
    return out


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_sweep_ends_like_one_that_was_not(
    how: signal.Signals, whole: Path, text_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (tmp_path / "waiting.py").write_text(WAITING)
    waiting = ["--callbacks", f"{tmp_path}/waiting.py:Waiting"]
    process = begin([*STOPPED, *options(out, text_folder), *LONGER, *waiting])
    # In the second trial, past a checkpoint of its second run: a whole one, whose name is a number.
    wait_for(process, lambda: list(out.glob("trials/0001/seed1001.unfinished/checkpoints/[0-9]*[0-9]")))
    os.killpg(process.pid, how)
    text, _ = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130, text
        assert "The same command resumes from what is in the folder." in text
    assert [trial.state for trial in trials_of(out)] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert tune([*STOPPED, *options(out, text_folder), *LONGER]) == 0
    assert (out / "trials/0001/seed1001/resumes.jsonl").exists()
    assert results(out) == results(whole)
    assert metrics(out) == metrics(whole)


def test_two_processes_share_the_trials(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--search", RATES, "--trials", "6", "--sampler", "random", *options(out, text_folder)]
    first, second = begin(arguments), begin(arguments)
    texts = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert first.returncode == 0, texts[0][-3000:]
    assert second.returncode == 0, texts[1][-3000:]
    trials = trials_of(out)
    assert len(trials) == 6 and not any(trial.state == TrialState.RUNNING for trial in trials)
    assert len({trial.params["learning_rate"] for trial in trials}) == 6
    assert "database is locked" not in "".join(texts)


def test_several_jobs_make_as_many_trials(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tune(["--search", RATES, "--trials", "3", "--jobs", "2", *options(out, text_folder)]) == 0
    assert len(trials_of(out)) == 3
    assert not any(trial.state == TrialState.RUNNING for trial in trials_of(out))


def test_a_trial_that_another_process_is_at_work_on_is_not_taken(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, base(), parse_searches([RATES], base()), (1000,), trials=2)
    with opened(sweep) as study:
        first = claim(study, sweep)
        second = claim(study, sweep)
        assert first is not None and second is not None
        assert (first.trial.number, second.trial.number) == (0, 1)
        assert claim(study, sweep) is None
        first.release()  # as a process that ends
        again = claim(study, sweep)
        assert again is not None
        assert (again.trial.number, again.trial.params) == (0, first.trial.params)
        again.release()
        second.release()


def test_a_trial_that_ends_while_it_is_looked_at_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between another process's reading of the list and its trying of the lock, a trial's own process may end it."""
    sweep = Sweep(tmp_path, base(), parse_searches([RATES], base()), (1000,), trials=1)
    with opened(sweep) as own, opened(sweep) as others:
        first = claim(own, sweep)
        assert first is not None
        lock = studies._locked

        def ends_first(sweep: Sweep, number: int) -> Any:
            own.tell(first.trial, state=TrialState.PRUNED)
            first.release()
            return lock(sweep, number)

        monkeypatch.setattr(studies, "_locked", ends_first)
        assert claim(others, sweep) is None
        monkeypatch.undo()
        held = studies._locked(sweep, 0)
        assert held is not None, "nobody holds the lock of a trial that is over"
        held.release()


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "grid"])
def test_equal_seeds_search_the_same_and_other_seeds_do_not(sampler: Any, tmp_path: Path) -> None:
    searches = parse_searches(["learning-rate: 1e-4 | 1e-3 | 1e-2 | 1e-1", "n-layer: 1..6", "dropout: 0 | 0.1"], base())

    def drawn(name: str, seed: int, *at_a_time: int) -> list[dict[str, Any]]:
        folder = tmp_path / name
        folder.mkdir()
        sweep = Sweep(folder, base(), searches, (1000,), trials=12, sampler=sampler, seed=seed)
        found = []
        for number in at_a_time:  # processes that come one after the other
            with opened(sweep) as study:
                for _ in range(number):
                    claimed = claim(study, sweep)
                    assert claimed is not None
                    found.append(claimed.trial.params)
                    study.tell(claimed.trial, float(claimed.trial.params["n_layer"]))
                    claimed.release()
        return found

    # More than the ten that are drawn at random before a sampler goes by what it has seen.
    first = drawn("a", 3, 1, 9, 1, 1)
    assert first == drawn("b", 3, 12)
    assert first[:3] != drawn("c", 4, 3)
    assert len({str(point) for point in first}) > 6


def test_help_answers_without_optuna() -> None:
    code = (
        "import sys; from tying_agents.commands import start\n"
        "try: start('tune', ['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('optuna', 'torch', 'sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--search" in done.stdout
