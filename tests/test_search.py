from typing import Any

import numpy as np
import pytest
from tying_agents.controllers.search import Annealing, HillClimbing, SearchController, TreeSearch
from tying_agents.settings import SearchConfig

from tests.conftest import TINY
from tests.controllers import make_controller
from tying_env.env import LayerTyingEnv
from tying_env.kinds import Kinds


def search(name: Any, **settings: Any) -> SearchController:
    controller = make_controller(name, 4, 0, SearchConfig(**settings))
    assert isinstance(controller, SearchController)
    return controller


@pytest.mark.parametrize("name", ["hill-climbing", "annealing", "tree-search"])
def test_a_search_changes_at_most_one_entry_and_leaves_the_environment_alone(env: LayerTyingEnv, name: str) -> None:
    controller = search(name)
    controller.bind(env)
    observation, _ = env.reset(seed=0)
    undisturbed = env.fork()
    for _ in range(3):
        action = controller.act(observation)
        assert (action != observation).sum() <= 1
        observation, reward, *_ = env.step(action)
        np.testing.assert_equal(undisturbed.step(action)[1], reward)


def test_the_step_taken_is_the_one_that_was_tried(env: LayerTyingEnv) -> None:
    """The chosen candidate's counterfactual is bit for bit what then happens: it saw the same batches."""
    controller = search("hill-climbing")
    assert isinstance(controller, HillClimbing)
    controller.bind(env)
    observation, _ = env.reset(seed=0)
    tried: dict[tuple[int, ...], float] = {}
    plain = controller._try

    def noting(fork_of: LayerTyingEnv, action: Any) -> Any:
        fork, loss = plain(fork_of, action)
        tried[tuple(action.tolist())] = loss
        return fork, loss

    controller._try = noting  # type: ignore[method-assign]
    action = controller.act(observation)
    assert tried[tuple(action.tolist())] == min(tried.values())
    _, reward, *_ = env.step(action)
    assert np.log(-reward) == pytest.approx(min(tried.values()), abs=1e-12)
    assert controller.trials == len(tried) == 3


def test_annealing_takes_a_worse_change_when_hot_and_refuses_it_when_cold(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    observation = np.zeros(4, dtype=np.int64)
    for temperature, taken in ((1e9, True), (1e-9, False)):
        controller = search("annealing", temperature=temperature)
        assert isinstance(controller, Annealing)
        controller.bind(env)
        values = iter([1.0, 2.0])  # keeping, then changing
        controller._try = lambda env, action, values=values: (env, next(values))  # type: ignore[method-assign]
        assert (controller.act(observation) != observation).any() == taken
    diverging = iter([1.0, np.inf])
    controller._try = lambda env, action: (env, next(diverging))  # type: ignore[method-assign]
    controller.temperature = 1e9
    assert (controller.act(observation) == observation).all()  # never into a divergence


def test_tree_search_looks_ahead() -> None:
    """The first step is worse, the second makes up for it: depth 2 sees that, depth 1 does not."""
    env = LayerTyingEnv(**TINY | {"total_steps": 400})
    env.reset(seed=0)
    start = np.array([0, 0, 0, 0])

    class Fake:
        over = False

        def __init__(self, path: tuple[Any, ...]) -> None:
            self.path = path
            self.trainer = self
            self.tied = self
            self.tying = np.array(path[-1]) if path else start
            self.kinds = Kinds.alike(4)

    for depth, leaves in ((1, False), (2, True)):
        controller = search("tree-search", tree_depth=depth, candidates=3)
        assert isinstance(controller, TreeSearch)

        def trying(fork_of: Any, action: Any) -> Any:
            path = (*getattr(fork_of, "path", ()), tuple(action.tolist()))
            changed = sum(step != tuple(start.tolist()) for step in path)
            return Fake(path), {0: 1.0, 1: 2.0, 2: 0.5}[changed] if len(path) > 1 else 1.0 + changed

        controller._try = trying  # type: ignore[method-assign]
        controller.bind(env)
        assert (controller.act(start) != start).any() == leaves


def test_changes_of_one_entry_are_uniform_over_the_other_tyings_that_a_layer_can_give(env: LayerTyingEnv) -> None:
    controller = search("hill-climbing")
    controller.bind(env)
    tying = np.array([0, 1, 0, 3])
    drawn = [tuple(controller._change_one(tying).tolist()) for _ in range(9000)]
    assert all(sum(a != b for a, b in zip(action, tying, strict=True)) == 1 for action in drawn)
    counts = {action: drawn.count(action) for action in set(drawn)}
    # Copying layer 2 would be copying layer 0, whose weights it has.
    expected = {(0, 0, 0, 3): 3000, (0, 1, 1, 3): 1500, (0, 1, 2, 3): 1500, (0, 1, 0, 0): 1500, (0, 1, 0, 1): 1500}
    assert counts.keys() == expected.keys()
    assert all(abs(counts[action] - expected[action]) < 200 for action in expected)


def test_a_search_proposes_no_change_that_the_environment_undoes(env: LayerTyingEnv) -> None:
    env.workload._kinds = Kinds([0, 1, 0, 1])  # even layers cannot be tied to odd ones
    controller = search("hill-climbing")
    controller.bind(env)
    for action in ([0, 0, 1, 1], [0, 0, 0, 0]):  # counted within each kind
        found = {tuple(controller._change_one(np.array(action)).tolist()) for _ in range(200)}
        assert found == {(0, 0, 0, 1), (0, 0, 1, 0)}
    env.workload._kinds = Kinds(np.arange(4))  # nothing can be tied
    assert controller._change_one(np.zeros(4, dtype=np.int64)).tolist() == [0, 0, 0, 0]


def test_a_search_without_an_environment_says_so() -> None:
    with pytest.raises(RuntimeError, match="bind"):
        search("annealing").act(np.zeros(4, dtype=np.int64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"tree_depth": 0}, "tree_depth must be at least 1, got 0"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"temperature_decay": 2}, r"temperature_decay must be in \(0, 1\], got 2"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchConfig(**settings)
