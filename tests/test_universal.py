"""A Universal Transformer: embeddings of the step, and positions that halt, against plain code."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import TINY
from tying_env.env import LayerTyingEnv
from tying_env.primary.models import build_model
from tying_env.seeding import torch_randomness_from, torch_stream
from tying_env.vector.supported import check_supported

UNIVERSAL: dict[str, Any] = {"step_embedding": "learned", "adaptive_halting": True}
TYING = [0, 0, 2, 0]
IDS = torch.arange(2 * 9).view(2, 9) % 7


def made(tiny: dict[str, Any], **settings: Any) -> LayerTyingEnv:
    env = LayerTyingEnv(**tiny | UNIVERSAL | {"dropout": 0.0, "dtype": "float64"} | settings)
    env.reset(seed=0, options={"tying": TYING})
    shake(env)
    return env


@torch.no_grad()
def shake(env: LayerTyingEnv) -> None:
    """Move all weights, and let positions halt after different numbers of layers."""
    model: Any = env.trainer.network.model
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.add_(0.3 * torch.randn(p.shape, generator=generator))
    if env.config.adaptive_halting:
        model.transformer.wte.weight.mul_(3)
        unit = model.transformer.halting.unit
        unit.weight.copy_(0.1 * torch.randn(unit.weight.shape, generator=torch.Generator().manual_seed(3)))
        unit.bias.zero_()


def reference(model: Any, ids: Tensor) -> tuple[Tensor, list[list[int]], Tensor]:
    """One sequence, one layer, one position after the other: final states (T, D), layers computed, ponder costs (T)."""
    trunk = model.transformer
    steps = trunk.step_embedding.weight if hasattr(trunk, "step_embedding") else torch.zeros(len(trunk.h), 1)
    out, layers, costs = [], [], []
    for sequence in ids:
        positions = range(len(sequence))
        state = [trunk.wte.weight[token] + trunk.wpe.weight[i] for i, token in enumerate(sequence)]
        given: list[list[Tensor]] = [[] for _ in positions]  # the probabilities of each position so far
        mixed = [torch.zeros(len(state[0])).to(state[0]) for _ in positions]
        count, cost = [0 for _ in positions], [torch.zeros(()) for _ in positions]
        done = [False for _ in positions]
        for n, block in enumerate(trunk.h):
            past = torch.full((1, 1, len(sequence), len(sequence)), -torch.inf).triu(1).to(state[0])
            new = type(block).forward(block, (torch.stack(state) + steps[n])[None], attention_mask=past)[0]
            for i in positions:
                if done[i]:
                    continue
                state[i], count[i] = new[i], count[i] + 1
                unit = trunk.halting.unit
                p = 1 / (1 + torch.exp(-(unit.weight[0] @ new[i] + unit.bias[0])))
                if sum(given[i]) + p >= 0.99 or n == len(trunk.h) - 1:
                    p = torch.ones(()).to(p) - sum(given[i])
                    done[i], cost[i] = True, count[i] + p
                given[i].append(p)
                mixed[i] = mixed[i] + p * new[i]
        out.append(trunk.ln_f.forward(torch.stack(mixed)))
        layers.append(count)
        costs.append(torch.stack(cost))
    return torch.stack(out), layers, torch.stack(costs)


@pytest.mark.parametrize("step", ["none", "learned", "sinusoidal"])
def test_outputs_costs_and_gradients_are_those_of_plain_code(tiny: dict[str, Any], step: str) -> None:
    env = made(tiny, step_embedding=step)
    model: Any = env.trainer.network.model
    found = model.transformer(IDS)
    expected, layers, costs = reference(model, IDS)
    torch.testing.assert_close(found.last_hidden_state, expected)
    assert found["steps"].tolist() == layers and len({n for row in layers for n in row}) > 2
    torch.testing.assert_close(found["ponder_cost"], costs.mean())
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    parameters = env.trainer.trainable_parameters()
    ours, plain = (
        torch.autograd.grad((states * weights).sum() + cost, parameters, allow_unused=True)
        for states, cost in ((found.last_hidden_state, found["ponder_cost"]), (expected, costs.mean()))
    )
    for one, other in zip(ours, plain, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_the_loss_is_the_cross_entropy_and_its_gradient_has_the_cost_of_time(tiny: dict[str, Any]) -> None:
    env = made(tiny, ponder_cost=0.5)
    model: Any = env.trainer.network.model
    loss = env.trainer.task.loss(model, IDS)
    free = made(tiny, ponder_cost=0.0).trainer.task
    assert loss.item() == env.trainer.task.measure(model, IDS).loss.item() == free.loss(model, IDS).item()
    cost = model.transformer(IDS[:, :-1])["ponder_cost"]
    parameters = list(model.transformer.halting.parameters())
    whole, task, time = (torch.autograd.grad(value, parameters) for value in (loss, free.loss(model, IDS), cost))
    for i in range(2):
        assert time[i].any()
        torch.testing.assert_close(whole[i], task[i] + 0.5 * time[i])


def test_a_costly_time_makes_positions_halt_earlier(tiny: dict[str, Any]) -> None:
    means = []
    for cost in (0.0, 3.0):
        env = LayerTyingEnv(**tiny | UNIVERSAL | {"ponder_cost": cost, "learning_rate": 0.03, "warmup_steps": 0})
        env.reset(seed=0)
        for _ in range(5):
            env.step(np.array([0, 0, 0, 0]))
        model: Any = env.trainer.network.model.eval()
        means.append(model.transformer(IDS)["steps"].double().mean().item())
    assert means[1] < means[0]


def test_at_first_positions_halt_after_two_layers(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | UNIVERSAL)
    env.reset(seed=0)
    assert env.trainer.network.model.transformer(IDS)["steps"].eq(2).all()  # type: ignore[operator]


def test_sinusoids_are_the_papers_in_the_size_of_gpt2s_embeddings(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"step_embedding": "sinusoidal"})
    env.reset(seed=0)
    found: Any = env.trainer.network.model.transformer.step_embedding.weight  # type: ignore[union-attr]
    for t in range(4):
        for j in range(8):
            angle = (t + 1) / 10_000 ** (2 * j / 16)
            expected = 0.02 * np.sqrt(2) * np.array([np.sin(angle), np.cos(angle)])
            np.testing.assert_allclose(found[t, 2 * j : 2 * j + 2], expected, rtol=1e-5)
    plain = LayerTyingEnv(**tiny)
    plain.reset(seed=0)
    assert plain.trainer.count_trainable() == env.trainer.count_trainable()


def test_parameters_are_counted(tiny: dict[str, Any]) -> None:
    counts = []
    for settings in ({}, {"step_embedding": "learned"}, {"adaptive_halting": True}):
        env = LayerTyingEnv(**tiny | settings)
        env.reset(seed=0)
        env.step(np.array(TYING))
        counts.append(env.trainer.count_trainable())
    assert counts[1] - counts[0] == 4 * 16
    assert counts[2] - counts[0] == 16 + 1


def test_nothing_is_kept_between_forward_passes(tiny: dict[str, Any]) -> None:
    model: Any = made(tiny).trainer.network.model
    halting = model.transformer.halting
    model(IDS)
    assert halting._pass is None
    hook = model.transformer.h[2].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(IDS)
    hook.remove()
    assert halting._pass is None
    copied: Any = copy.deepcopy(model)
    assert copied.transformer.h[3]._halting[0] is copied.transformer.halting is not halting
    with pytest.raises(RuntimeError, match="positions halt within a whole network"):
        model.transformer.h[3](torch.zeros(1, 4, 16, dtype=torch.float64))


def test_defaults_add_nothing(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny)
    with torch_randomness_from(torch_stream(0, "weights")):
        model: Any = build_model(env.config, env.workload.sizes)
    assert {name for name, _ in model.transformer.named_children()} == {"wte", "wpe", "drop", "h", "ln_f"}
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.transformer.h)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_embedding": "rotary"}, "step_embedding must be one of 'none', 'sinusoidal', 'learned', got 'rotary'"),
        ({"adaptive_halting": True, "ponder_cost": -1.0}, "ponder_cost must be at least 0, got -1.0"),
        ({"ponder_cost": 0.5}, "ponder_cost applies only to adaptive_halting: leave it out, got 0.5"),
        ({"model": "bert", "adaptive_halting": True}, "adaptive_halting does not apply to the model 'bert'"),
        ({"model": "llama", "step_embedding": "learned"}, "step_embedding does not apply to the model 'llama'"),
        (UNIVERSAL | {"compile_blocks": True}, "compile_blocks needs step_embedding='none', got 'learned'"),
        ({"adaptive_halting": True, "compile_blocks": True}, "compile_blocks needs adaptive_halting=False, got True"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    tiny: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LayerTyingEnv(**tiny | settings)


@pytest.mark.parametrize("settings", [{"step_embedding": "learned"}, {"adaptive_halting": True}])
def test_the_vector_environment_refuses_them(settings: dict[str, Any]) -> None:
    from tying_env import EnvConfig

    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be .* in the vector environment"):
        check_supported(EnvConfig(**TINY | settings))
