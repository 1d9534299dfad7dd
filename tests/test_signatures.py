"""Signs of a failed controller: found where they are, and not where there are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents import Controller
from tying_agents.callbacks import Callback
from tying_agents.controllers.base import Context
from tying_agents.controllers.traces import ReplayController
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_agents.running.agents import ControlledRun
from tying_agents.running.runner import run
from tying_agents.sb3.agent import SB3Run

from tests.conftest import TINY
from tests.run_folders import change, make_run
from tying_env import EnvConfig, partition
from tying_env.kinds import Kinds
from tying_env.reports.comparison import load_comparison
from tying_env.reports.html import runs_table
from tying_env.reports.signatures import find_signatures
from tying_env.reports.summary import summary_rows

L, N = 8, 90
ALL, NONE = np.zeros(L, dtype=np.int64), np.arange(L)
ONE, OTHER = np.array([0, 1, 0, 1, 4, 4, 0, 0]), np.array([0, 1, 2, 2, 2, 5, 5, 0])
EXPLORES = "explores at random to the end"


def drawn(rng: np.random.Generator, n_units: int = L) -> Any:
    return partition.canonicalise(partition.uniform_random_action(n_units, rng))


def records(tyings: Any, perplexity: Any = None, **more: Any) -> list[dict[str, Any]]:
    values = np.full(len(tyings), 10.0) if perplexity is None else perplexity
    return [{"tying": list(t), "perplexity": p, **more} for t, p in zip(tyings, values, strict=True)]


def exploring(choice: Any, epsilon: float, seed: int, n: int = N) -> list[Any]:
    """Return the tyings of a controller that keeps to a choice, but for a share of decisions that it draws."""
    rng = np.random.default_rng(seed)
    return [drawn(rng) if rng.random() < epsilon else choice for _ in range(n)]


def names(found: list[dict[str, Any]], chooses: bool = True) -> list[str]:
    return [sign.name for sign in find_signatures(found, chooses=chooses)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_what_always_or_never_ties_is_named(seed: int, epsilon: float) -> None:
    for choice, name in ((ALL, "always ties"), (NONE, "never ties")):
        tyings = [*exploring(choice, 1.0, seed, 30), *exploring(choice, epsilon, seed, 59), choice]
        assert names(records(tyings, epsilon=epsilon)) == [name]
        assert names(records([*tyings[:-1], ONE], epsilon=epsilon)) == []  # not at the end
    assert names(records(exploring(ONE, epsilon, seed))) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_controller_that_settles_shows_no_sign_however_it_began(seed: int) -> None:
    epsilons = [max(0.1, 0.95**i) for i in range(N)]  # as the paper's
    rng = np.random.default_rng(seed)
    tyings = [drawn(rng) if rng.random() < epsilon else ONE for epsilon in epsilons]
    assert names(records(tyings, epsilon=0.1)) == []
    half = [*exploring(ALL, 1.0, seed, 60), *exploring(OTHER, 0.0, seed, 30)]
    assert names(records(half)) == []


@pytest.mark.parametrize("period", [1, 2, 3])
def test_a_tying_that_goes_to_and_fro_is_named(period: int) -> None:
    tyings = [(ONE, OTHER)[i // period % 2] for i in range(N)]
    assert names(records(tyings, epsilon=0.1)) == ["oscillates"]
    assert names(records([*tyings[:50], *[ONE] * 40], epsilon=0.1)) == []  # it has settled since
    slow = [(ONE, OTHER)[i // 10 % 2] for i in range(N)]
    assert names(records(slow, epsilon=0.1)) == []


def test_a_tying_that_is_another_one_at_every_decision_is_named() -> None:
    """It is no random one: three layers always lead."""
    rng, tyings = np.random.default_rng(0), []
    for _ in range(N):
        tyings.append(np.array([0, 1, 2, *rng.integers(3, size=L - 3)]))
    assert names(records(tyings)) == ["oscillates"]
    grows = [np.where(np.arange(L) < 1 + i // 12, np.arange(L), 0) for i in range(N)]
    assert names(records(grows)) == []  # it unties layer by layer, and never goes back


def test_a_controller_that_explores_to_the_end_is_named() -> None:
    (sign,) = find_signatures(records([ONE] * 3, epsilon=0.6), chooses=True)  # few decisions are enough
    assert (sign.name, "0.60" in sign.found) == (EXPLORES, True)
    assert names(records(exploring(ONE, 1.0, 0), epsilon=0.21)) == [EXPLORES]  # not "oscillates" as well
    assert names(records([ONE] * N, epsilon=0.2)) == []


def test_a_policy_that_cannot_be_told_from_chance_is_named_mostly_and_one_that_can_is_not() -> None:
    """At a level of 5 % for each of two tests, nine in ten that are chance are found."""
    found = [names(records(exploring(ONE, 1.0, seed))) for seed in range(40)]
    assert sum(signs == [EXPLORES] for signs in found) >= 32
    biased = [np.where(np.arange(L) < 3, np.arange(L), tying) for tying in exploring(ONE, 1.0, 1)]
    assert EXPLORES not in names(records([partition.canonicalise(t) for t in biased]))
    still = np.repeat(exploring(ONE, 1.0, 2, 9), 10, axis=0)  # random, but it stays
    assert names(records(still)) == []


@pytest.mark.parametrize("choosing", [True, False])
def test_a_perplexity_that_swings_is_named_whoever_ties(choosing: bool) -> None:
    up_and_down = 10 * np.exp(0.15 * (-1.0) ** np.arange(N))  # by 35 %
    assert names(records([ONE] * N, up_and_down), choosing) == ["perplexity swings"]
    settled = np.where(np.arange(N) < 60, up_and_down, 10.0)
    noisy = 10 * np.exp(0.05 * np.random.default_rng(0).standard_normal(N))
    falling = np.geomspace(200, 10, N)
    for steady in (settled, noisy, falling):
        assert names(records([ONE] * N, steady), choosing) == []
    unknown = [None if i % 2 else 10.0 for i in range(N)]  # not finite in a file
    assert names(records([ONE] * N, unknown), choosing) == []


def test_patterns_chance_and_few_decisions_are_not_accused() -> None:
    for tyings in ([NONE] * N, [ALL] * N, exploring(ONE, 1.0, 0), [(ONE, OTHER)[i % 2] for i in range(N)]):
        assert names(records(tyings, epsilon=1.0), chooses=False) == []
    few = 27  # nine at the end
    for tyings in ([NONE] * few, [ALL] * few, exploring(ONE, 1.0, 0, few), [(ONE, OTHER)[i % 2] for i in range(few)]):
        assert names(records(tyings, np.geomspace(1, 1e9, few))) == []
    assert names([]) == []
    assert names(records([[0]] * N, epsilon=1.0)) == []  # of one layer there is nothing to choose


class Blind(Controller):
    """A pattern of the user's own."""

    def act(self, observation: Any) -> Any:
        return observation


class Learner(Blind):
    def update(self, transition: Any) -> None:
        pass


class Looker(Blind):
    needs = frozenset({"probes"})


def chooses(name: str) -> bool:
    agent = find_agent(name)
    return ControlledRun(agent.make(agent.settings(), Context(L, 0, 5, 100))).chooses


def test_who_chooses() -> None:
    """The rule has no list of names: it agrees with what the built-in agents are."""
    choosing = ("dqn", "layer-sweep-dqn", "hill-climbing", "annealing", "tpe", "halving", "share-then-split")
    assert [name for name in choosing if not chooses(name)] == []
    blind = ("conventional", "albert", "random", "random-static", "random-redrawn", "prior", "sandwich")
    assert [name for name in blind if chooses(name)] == []
    assert ReplayController.update is Controller.update and SB3Run.chooses
    assert [ControlledRun(one()).chooses for one in (Blind, Learner, Looker)] == [False, True, True]


class Notes(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(("agent", "signs"), [("dqn", [EXPLORES]), ("random", [])])
def test_a_run_says_it_at_its_end_and_writes_it_down(
    agent: str, signs: list[str], tmp_path: Path, text_folder: Path
) -> None:
    env = EnvConfig(**TINY | {"dataset": str(text_folder), "total_steps": 8})
    told = Notes()
    directory, _ = run(RunConfig(agent, run_dir=tmp_path / "run", env=env, test_windows=2), [told])
    notes = directory.read_json("summary.json")["notes"]
    assert [note.partition(":")[0] for note in notes] == signs
    assert [text for text in told.notes if "Sign of failure" in text] == [
        f"Sign of failure, {note} (docs/reading.md)." for note in notes
    ]
    assert dict(summary_rows(directory)).get("signs of failure") == (signs[0] if signs else None)


def test_a_run_that_was_stopped_is_not_judged(tmp_path: Path, text_folder: Path) -> None:
    class Stop(Callback):
        def decision_made(self, loop: Any, record: Any) -> None:
            loop.stop("enough")

    env = EnvConfig(**TINY | {"dataset": str(text_folder), "total_steps": 8})
    directory, status = run(RunConfig("dqn", run_dir=tmp_path / "run", env=env, test_windows=2), [Stop()])
    assert (status, directory.read_json("summary.json")["notes"]) == ("stopped", [])


def test_a_report_names_the_signs_of_each_run_and_arm(tmp_path: Path) -> None:
    for seed in range(3):
        path = make_run(tmp_path / "dqn" / str(seed), "dqn", seed)
        if seed:
            change(path, "summary.json", notes=["never ties: no layer shared", "perplexity swings: by 2"])
    found = load_comparison([tmp_path])
    assert "dqn: never ties, in 2 of 3 runs (seeds 1, 2). docs/reading.md says what to make of it." in found.notes
    runs = [run for summary in found.arms for run in summary.arm.runs]
    status = [row[2] for row in runs_table(runs, found.metric).rows]
    assert status == ["finished", *["finished, never ties, perplexity swings"] * 2]


def test_sublayers_are_judged_kind_by_kind() -> None:
    kinds, rng = Kinds.one_after_the_other((4, 4)), np.random.default_rng(0)
    together = records([[0] * 4 + [4] * 4] * N)
    (sign,) = find_signatures(together, chooses=True, kinds=kinds)
    assert sign.name == "always ties"
    assert find_signatures(together, chooses=True) == []  # eight units of one kind could all be tied
    named = 0
    for _ in range(10):
        actions = [kinds.uniform_action(rng) for _ in range(80)]
        tyings = [partition.canonicalise(kinds.units_named(action)) for action in actions]
        named += [sign.name for sign in find_signatures(records(tyings), chooses=True, kinds=kinds)] == [EXPLORES]
    assert named >= 8
