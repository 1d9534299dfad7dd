"""Searches that change little and stop: where they begin, what they move, what they pay, when they stay."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.controllers.base import Context
from tying_agents.controllers.mcts import MonteCarloTreeSearch
from tying_agents.controllers.patient import ChangeLittle, PatientSearch, moves
from tying_agents.controllers.thompson import ThompsonSampling
from tying_agents.controllers.view import View
from tying_agents.running.agents import drive_agent
from tying_agents.running.runner import run
from tying_agents.settings import ChangeConfig, PatientConfig, PriorConfig, ThompsonConfig, TreeConfig

from tests.conftest import TINY
from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env.env import LayerTyingEnv
from tying_env.kinds import Kinds
from tying_env.partition import all_tyings, leaders
from tying_env.runs import RunDirectory

pytestmark = pytest.mark.usefixtures("short_text")

NAMES = ["change-little", "thompson", "mcts"]
LONG: dict[str, Any] = TINY | {"k": 1, "total_steps": 100, "validate_every": 0, "freeze_at_start": False}


def pairs(tying: Any) -> set[tuple[int, int]]:
    return {(i, j) for i, j in itertools.combinations(range(len(tying)), 2) if tying[i] == tying[j]}


def made(kind: Any, n_units: int = 4, kinds: Kinds | None = None, **settings: Any) -> Any:
    return kind(kind.Settings(**settings), Context(n_units, seed=0, of_kinds=kinds))


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_a_move_gives_one_layer_another_group(most: int) -> None:
    """By enumeration: the tyings in which the other layers are grouped as before."""
    every = [tying for tying in all_tyings(5) if len(leaders(tying)) <= most]
    for tying in every:
        expected = set()
        for other in every:
            apart = pairs(tying) ^ pairs(other)
            if apart and any(all(layer in pair for pair in apart) for layer in range(5)):
                expected.add(tuple(other.tolist()))
        found = moves(tying, Kinds.alike(5), [most])
        assert {tuple(move.tolist()) for move in found} == expected
        assert len(found) == len(expected)


def test_moves_stay_within_a_kind() -> None:
    kinds = Kinds([0, 1, 0, 1])
    found = {tuple(move.tolist()) for move in moves(np.array([0, 0, 0, 1]), kinds, [1, 2])}
    assert found == {(0, 0, 0, 0)}  # of the first kind there may be one group; of the second two are made one


@pytest.mark.parametrize("name", NAMES)
def test_the_run_pays_for_its_trials_and_stays_after_a_while(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = LayerTyingEnv(**LONG)
    tyings: list[Any] = []
    plain = LayerTyingEnv.step

    def step(self: LayerTyingEnv, action: Any) -> Any:
        if self is env:
            tyings.append((env.train_step + env.trial_steps, tuple(env.permitted(action).tolist())))
        return plain(self, action)

    monkeypatch.setattr(LayerTyingEnv, "step", step)
    loop = drive_agent(name, env, seed=0)
    assert loop.finished
    assert env.train_step + env.trial_steps == 100 and env.trial_steps >= 6
    late = {tying for at, tying in tyings if at >= 0.667 * 100}
    assert len(late) == 1
    assert all(
        len(leaders(np.array(tying))) <= 2 for _, tying in tyings
    )  # what chance gives of four layers: H_4 is 2.08


def test_it_begins_with_a_pattern_and_looks_more_seldom_the_longer_it_runs() -> None:
    search = made(ChangeLittle, 12, groups=3, share=0.2, until=0.8)
    assert search.initial_tying().tolist() == [0, *[1] * 6, *[7] * 5]
    looked = []

    class Env:
        interval, train_step, total_steps, steps_for_trials = 2, 0, 200, math.inf
        ties_at, trial_steps, kinds, over = 0, 0, Kinds.alike(12), False

        def fork(self) -> Any:
            looked.append(self.ties_at)
            return self

        def step(self, action: Any) -> Any:
            return action, -1.0, False, False, {"perplexity": 2.0}

    search.bind(env := Env())
    observation = search.initial_tying()
    for env.ties_at in range(0, 200, 2):
        observation = search.act(observation)
    # 40 steps of 2 trials x 2 decisions x 2 steps are five looks: at 160 times 0, 1, 4, 9 and 16 parts of 25.
    assert sorted(set(looked)) == [2, 8, 26, 58, 104] and len(looked) == 10
    assert "2 trials of 2 decisions" in search.notes()[0]


@pytest.mark.parametrize("better", [True, False])
def test_a_move_is_made_if_it_was_better_in_its_trial(better: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    search = made(ChangeLittle, until=1.0, groups=2)
    search.bind(View(env := LayerTyingEnv(**LONG)))
    env.reset(seed=0, options={"tying": (start := search.initial_tying())})
    monkeypatch.setattr(
        search,
        "_trial",
        lambda env, action: (
            float(np.array_equal(action, start)) if better else 1 - float(np.array_equal(action, start))
        ),
    )
    assert (search.act(start) == start).all()  # the first decision is not looked ahead for
    assert (search.act(start) != start).any() == better


def test_a_trial_that_diverges_is_never_gone_to(monkeypatch: pytest.MonkeyPatch) -> None:
    env = LayerTyingEnv(**LONG)
    for kind in (ChangeLittle, ThompsonSampling, MonteCarloTreeSearch):
        search = made(kind, until=1.0, groups=2)
        search.bind(View(env))
        env.reset(seed=0, options={"tying": (start := search.initial_tying())})
        monkeypatch.setattr(
            search, "_trial", lambda env, action, start=start: 1.0 if np.array_equal(action, start) else math.inf
        )
        search.act(start)
        assert (search.act(start) == start).all()
        if isinstance(search, ThompsonSampling):
            assert not search.effects.mean.any()


def test_blind_deals_results_out_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for blind in (False, True):
        search = made(ChangeLittle, until=1.0, blind=blind, candidates=3)
        monkeypatch.setattr(search, "_trial", lambda env, action: float(action.sum()))
        found = [search.losses(None, [np.full(4, i) for i in range(4)]) for _ in range(400)]
        taken.append(found)
    assert all(losses == [0, 4, 8, 12] for losses in taken[0])
    assert all(sorted(losses) == [0, 4, 8, 12] for losses in taken[1])
    firsts = [losses[0] for losses in taken[1]]
    assert all(60 < firsts.count(value) < 140 for value in (0, 4, 8, 12))


# Settings with which each decision up to the fifth is looked ahead for.
OFTEN: dict[str, Any] = {"change-little": ChangeConfig(share=0.6), "thompson": ThompsonConfig(share=0.6)}
OFTEN |= {"mcts": TreeConfig(share=0.6, simulations=2)}


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_ends_with_the_same_bits(name: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = tiny | {"k": 1, "total_steps": 30, "validate_every": 10, "freeze_at_start": False}
    expected = outcome(finish(small(tiny, tmp_path / "whole", agent=name, controller=OFTEN[name])))
    path = tmp_path / "stopped"
    watcher = Watcher(lambda n: interrupt() if n in (3, 9) else None)
    assert run(small(tiny, path, agent=name, controller=OFTEN[name]), [watcher])[1] == "interrupted"
    at_the_stop = RunDirectory(path).read_metrics()[-1]["trial_steps"]
    resume_until_it_ends(path)
    assert outcome(path) == expected
    assert 0 < at_the_stop < expected["summary"]["trial_steps"]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (PatientConfig, {"groups": -1}, "groups must be at least 0, got -1"),
        (PatientConfig, {"patience": 0}, "patience must be at least 1, got 0"),
        (PatientConfig, {"share": 0.0}, r"share must be in \(0, 1\), got 0.0"),
        (PatientConfig, {"begin": "x"}, "begin must be one of 'own-ends', .*, got 'x'"),
        (PatientConfig, {"until": 1.1}, r"until must be in \[0, 1\], got 1.1"),
        (ChangeConfig, {"candidates": 0}, "candidates must be at least 1, got 0"),
        (TreeConfig, {"simulations": 1}, "simulations must be at least 2, got 1"),
        (TreeConfig, {"exploration": 0.0}, "exploration must be a finite number above 0, got 0.0"),
        (TreeConfig, {"keep": 1.0}, r"keep must be in \(0, 1\), got 1.0"),
        (ThompsonConfig, {"noise": 0.0}, "noise must be a finite number above 0, got 0.0"),
        (ThompsonConfig, {"spread": math.inf}, "spread must be a finite number above 0, got inf"),
    ],
)
def test_bad_settings_are_named(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize("kind", [ChangeLittle, ThompsonSampling, MonteCarloTreeSearch])
def test_more_groups_than_layers_are_refused(kind: type[PatientSearch[Any]]) -> None:
    with pytest.raises(ValueError, match="groups must be at most the number of layers, 4, got 5"):
        made(kind, groups=5)


@pytest.mark.parametrize("agent", ["merge-alike", "gates", "change-little", "thompson", "mcts", "prior"])
def test_units_of_several_kinds_are_tied_each_within_its_own(agent: str) -> None:
    env = LayerTyingEnv(**LONG | {"units": "sublayers", "total_steps": 30})
    settings = PriorConfig(max_parameters=10**9) if agent == "prior" else None
    loop = drive_agent(agent, env, settings=settings, seed=0)
    assert loop.finished
    assert (env.kinds.lowest[env.tying] == env.kinds.lowest).all()
    assert agent != "merge-alike" or len(leaders(env.tying)) == 4  # two of each kind, as chance gives
