"""What a step measures: the reward, bounded also when training diverges, and validation."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tying_env.env import LayerTyingEnv
from tying_env.primary.tasks import Measured


def test_validation_is_measured_when_due_and_at_the_end(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"total_steps": 9, "k": 2, "validate_every": 4})
    env.reset(seed=0)
    measured = [env.step(np.zeros(4, dtype=np.int64))[4]["validation_perplexity"] for _ in range(4)]
    # after steps 4, 6, 8, 9
    assert measured[0] == measured[1] != measured[2]
    assert measured[2] != measured[3] == env.evaluate("validation").perplexity
    env.reset(seed=0, options={"tying": [0, 0, 0, 0]})
    assert math.isinf(env.step(np.zeros(4, dtype=np.int64))[4]["validation_perplexity"])
    never = LayerTyingEnv(**tiny | {"total_steps": 4, "validate_every": 0})
    never.reset(seed=0)
    assert math.isinf(never.step(np.zeros(4, dtype=np.int64))[4]["validation_perplexity"])


@pytest.mark.parametrize("timing", ["after_training", "after_tying"])
def test_the_reward_is_the_negative_perplexity_on_fresh_training_batches(tiny: dict[str, Any], timing: Any) -> None:
    env = LayerTyingEnv(**tiny | {"reward_timing": timing, "reward_batches": 3})
    env.reset(seed=0)
    env.step(np.array([0, 0, 2, 0]))
    twin = LayerTyingEnv(**tiny | {"reward_timing": timing, "reward_batches": 3})
    twin.load_state_dict(env.state_dict())
    _, reward, *_ = env.step(np.array([0, 1, 2, 0]))
    # The same by hand: tie, train, measure, in the order asked for.
    twin.trainer.tied.change([0, 1, 2, 0], twin.trainer.optimizer)
    if timing == "after_training":
        twin.trainer.train(2)
    assert twin._episode is not None
    windows = np.concatenate([twin._episode.reward_batches.next_batch() for _ in range(3)])
    twin.trainer.network.model.eval()
    with torch.no_grad():
        loss = twin.trainer.task.loss(twin.trainer.network.model, torch.from_numpy(windows)).item()
    assert reward == pytest.approx(-math.exp(loss), rel=1e-5)
    assert not any((windows[0] == row).all() for row in windows[1:])


@pytest.mark.parametrize("where", ["loss", "gradient", "weight", "reward"])
def test_divergence_terminates_with_a_finite_bounded_reward(env: LayerTyingEnv, where: str) -> None:
    env.reset(seed=0)
    env.step(np.array([0, 1, 2, 3]))
    if where == "loss":
        env.trainer.task.loss = lambda *_: torch.tensor(math.nan, requires_grad=True)  # type: ignore[method-assign]
    if where == "reward":
        plain = env.trainer.task.measure

        def broken(model: torch.nn.Module, batch: torch.Tensor, **asked: bool) -> Measured:
            found = plain(model, batch, **asked)
            return found if model.training else found._replace(loss=found.loss * math.nan)

        env.trainer.task.measure = broken  # type: ignore[method-assign]
    weight = env.trainer.network.blocks[1].get_parameter("ln_1.weight")
    if where == "gradient":
        weight.register_hook(lambda gradient: gradient * math.nan)
    if where == "weight":
        with torch.no_grad():
            weight[3] = math.inf
    _, reward, terminated, truncated, info = env.step(np.array([0, 1, 2, 3]))
    assert (terminated, truncated, info["diverged"]) == (True, False, True)
    assert reward == -math.exp(20)
    assert math.isinf(info["perplexity"])
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([0, 1, 2, 3]))


def test_the_reward_is_bounded_when_the_perplexity_is_huge(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    with torch.no_grad():  # the head's largest logits are now in the thousands, and mostly wrong
        env.trainer.network.model.get_parameter("transformer.wte.weight").mul_(1e4)
    _, reward, terminated, _, info = env.step(np.array([0, 0, 0, 0]))
    assert reward == -math.exp(20) == -info["perplexity"]
    assert not terminated
