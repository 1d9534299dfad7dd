"""Followers take their leader's attention probabilities: outputs and gradients against plain code."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from tests.conftest import TINY
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary import reusing_attention
from tying_env.primary.reuse import add_reuse
from tying_env.primary.reusing_attention import ReusingAttention
from tying_env.primary.tasks import to_device
from tying_env.vector.supported import check_supported

VIT: dict[str, Any] = {key: value for key, value in TINY.items() if key not in ("tokenizer", "seq_len")} | {
    "model": "vit",
    "dataset": "digits",
    "batch_size": 8,
}
TYING = [0, 0, 2, 0]  # layers 1 and 3 take the probabilities of layer 0
# Of each network: queries, keys and values; what follows the heads; the feed-forward part.
NAMES = {
    "gpt2": (("attn.c_attn",), "attn.c_proj", ("mlp.c_fc", "mlp.c_proj")),
    "bert": (
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output.dense",
        ("intermediate.dense", "output.dense"),
    ),
    "vit": (("attention.q_proj", "attention.k_proj", "attention.v_proj"), "attention.o_proj", ("mlp.fc1", "mlp.fc2")),
}


def make(tiny: dict[str, Any], model: str = "gpt2", **settings: Any) -> LayerTyingEnv:
    base = VIT if model == "vit" else tiny | {"model": model}
    return LayerTyingEnv(**base | {"attention": "reused", "dtype": "float64", "dropout": 0.0} | settings)


def tied(tiny: dict[str, Any], model: str = "gpt2", tying: list[int] = TYING, **settings: Any) -> LayerTyingEnv:
    env = make(tiny, model, **settings)
    env.reset(seed=0, options={"tying": tying})
    return env


@torch.no_grad()
def shake(env: LayerTyingEnv) -> None:
    """Move all weights: biases begin at 0, and small weights hide what is done with them."""
    for p in env.trainer.network.model.parameters():
        p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))


def through_blocks(env: LayerTyingEnv) -> tuple[Tensor, Tensor]:
    """What goes into the first block and comes out of the last one, on a validation batch."""
    seen: list[Tensor] = []
    blocks = env.trainer.network.blocks
    hooks = [
        blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0])),
        blocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(output)),
    ]
    batch = next(iter(env.workload.batches_of("validation", 2)))
    model = env.trainer.network.model.eval()
    env.trainer.task.loss(model, to_device(batch, env.device))
    for hook in hooks:
        hook.remove()
    return seen[0], seen[1]


def affine(block: nn.Module, name: str, x: Tensor) -> Tensor:
    module = block.get_submodule(name)
    weight = module.get_parameter("weight")
    return x @ (weight if isinstance(module, Conv1D) else weight.T) + module.get_parameter("bias")


def reference(env: LayerTyingEnv, x: Tensor, leaders: list[int]) -> Tensor:
    """The blocks in plain torch, on the network's Parameters, where layer i takes the probabilities of `leaders[i]`."""
    model, h = env.config.model, env.config.n_head
    inputs, after, (up, down) = NAMES[model]
    probabilities: dict[int, Tensor] = {}
    for i, block in enumerate(env.trainer.network.blocks):
        norm = dict(block.named_modules())
        first = {"gpt2": "ln_1", "vit": "layernorm_before", "bert": "attention.output.LayerNorm"}[model]
        second = {"gpt2": "ln_2", "vit": "layernorm_after", "bert": "output.LayerNorm"}[model]
        y = x if model == "bert" else norm[first](x)
        q, k, v = torch.cat([affine(block, name, y) for name in inputs], -1).unflatten(-1, (3, h, -1)).unbind(-3)
        if leaders[i] == i:
            scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
            if model == "gpt2":
                scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
            probabilities[i] = scores.softmax(-1)
        y = torch.einsum("bhts,bshd->bthd", probabilities[leaders[i]], v).flatten(2)
        x = x + affine(block, after, y)
        x = norm[first](x) if model == "bert" else x
        y = x if model == "bert" else norm[second](x)
        y = F.gelu(affine(block, up, y), approximate="tanh" if model == "gpt2" else "none")
        x = x + affine(block, down, y)
        x = norm[second](x) if model == "bert" else x
    return x


@pytest.mark.parametrize("model", ["gpt2", "bert", "vit"])
@pytest.mark.parametrize(
    ("units", "tying"), [("block", TYING), ("sublayers", [0, 0, 2, 0, 0, 1, 1, 3])], ids=["blocks", "sublayers"]
)
def test_outputs_and_gradients_are_those_of_plain_code(
    tiny: dict[str, Any], model: str, units: str, tying: list[int]
) -> None:
    env = tied(tiny, model, tying, units=units)
    shake(env)
    parameters = list(dict.fromkeys(p for block in env.trainer.network.blocks for p in block.parameters()))
    x, output = through_blocks(env)
    expected = reference(env, x, TYING)
    torch.testing.assert_close(output, expected)
    assert not torch.allclose(output, reference(env, x, [0, 1, 2, 3]), rtol=1e-3)  # plain tying is another function
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    found, wanted = (
        torch.autograd.grad((y * weights).sum(), parameters, retain_graph=True) for y in (output, expected)
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_follower_saves_queries_keys_and_scores(tiny: dict[str, Any]) -> None:
    counts = []
    for attention in ("own", "reused"):
        env = tied(tiny, attention=attention)
        model: Any = env.trainer.network.model
        model.set_attn_implementation("eager")  # the counter does not see into the CPU's fused kernel
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(3, 16, dtype=torch.long))
        counts.append(counter.get_total_flops())
    positions, width = 3 * 16, 16
    assert counts[0] - counts[1] == 2 * (2 * positions * width * 2 * width + 2 * positions * 16 * width)


def test_the_tying_decides_and_a_layer_alone_computes_as_it_would(tiny: dict[str, Any]) -> None:
    plain, env = make(tiny, attention="own", dropout=0.1), make(tiny, dropout=0.1)
    for each in (plain, env):
        each.reset(seed=0)
    assert env.evaluate("validation").mean_loss == plain.evaluate("validation").mean_loss  # the frozen start
    independent = [each.step(np.arange(4))[4] for each in (plain, env)]
    np.testing.assert_equal(independent[1], independent[0])
    for each in (plain, env):
        each.trainer.tie(TYING)
    assert env.evaluate("validation").mean_loss != plain.evaluate("validation").mean_loss
    for each in (plain, env):
        each.trainer.tie([0, 1, 2, 3])
    assert env.evaluate("validation").mean_loss == plain.evaluate("validation").mean_loss


@pytest.mark.parametrize("model", ["gpt2", "bert", "vit"])
def test_each_layer_drops_connections_of_its_own(tiny: dict[str, Any], model: str) -> None:
    env = tied(tiny, model, dropout=0.5)
    used: list[Tensor] = []
    model_ = env.trainer.network.model.train()
    found = [module for module in model_.modules() if isinstance(module, ReusingAttention)]
    for module in found:  # values of 1 show the rows of what is dropped
        module._values = lambda x: torch.ones_like(x)  # type: ignore[method-assign]
        module._finish = lambda x: used.append(x) or torch.zeros_like(x)  # type: ignore[func-returns-value, method-assign]
    batch = next(iter(env.workload.batches_of("validation", 4)))
    env.trainer.task.loss(model_, to_device(batch, env.device))
    first, second = used[-2:]  # layers 1 and 3
    assert first.std() > 0.1 and not torch.equal(first, second)
    model_.eval()
    env.trainer.task.loss(model_, to_device(batch, env.device))
    torch.testing.assert_close(used[-1], torch.ones_like(used[-1]))


def test_checkpointed_blocks_and_the_leaders_gradient_train_alike(tiny: dict[str, Any]) -> None:
    results = []
    for settings in ({}, {"checkpoint_blocks": True}, {"accumulate": 2, "dropout": 0.0}):
        env = tied(tiny, **{"dropout": 0.1} | settings)
        results.append([env.step(np.array(action))[4]["train_loss"] for action in (TYING, [0, 1, 1, 1])])
    assert results[0] == results[1]
    env = tied(tiny, gradient="leader")
    parameters = list(env.trainer.tied.weights(0).values())
    x, output = through_blocks(env)
    found, wanted = (torch.autograd.grad(y.sum(), parameters) for y in (output, reference(env, x, TYING)))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_nothing_is_kept_between_forward_passes(tiny: dict[str, Any]) -> None:
    env = tied(tiny)
    model: Any = env.trainer.network.model
    kept = model.transformer._reused_attention
    model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    assert kept.probabilities is None
    hook = model.transformer.h[2].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(torch.zeros(1, 4, dtype=torch.long))
    hook.remove()
    assert kept.probabilities is None
    copied: Any = copy.deepcopy(model)  # what finetuning and others do
    assert copied.transformer._reused_attention is copied.transformer.h[3]._reused_attention[0] is not kept
    with pytest.raises(RuntimeError, match="layer 3 reuses the attention of layer 0, which has not computed any"):
        model.transformer.h[3](torch.zeros(1, 4, 16, dtype=torch.float64))


def test_values_alone_are_a_part_of_what_the_layer_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    env = LayerTyingEnv(**TINY | {"n_layer": 1, "n_embd": 256, "attention": "reused"})
    env.reset(seed=0)
    attention: Any = env.trainer.network.blocks[0].get_submodule("attn")
    x = torch.randn(1, 64, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()  # enough for oneDNN
    whole, part = attention.c_attn(x)[..., 512:], attention._values(x)
    torch.testing.assert_close(part, whole)
    wanted, found = (
        torch.autograd.grad(y.square().sum(), [x, attention.c_attn.weight, attention.c_attn.bias])
        for y in (whole, part)
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    handed: list[Tensor] = []
    monkeypatch.setattr(reusing_attention, "faster", lambda *_: True)
    monkeypatch.setattr(reusing_attention, "linear", lambda x, weight, *_: handed.append(weight) or x)  # type: ignore[func-returns-value]
    attention._values(x)
    assert handed[0].is_contiguous()  # else oneDNN takes a thousand times as long
    attention.c_attn.register_forward_hook(lambda _m, _i, output: output + 1)  # who looks into it is heard
    torch.testing.assert_close(attention._values(x), whole + 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "shared"}, "attention must be one of 'own', 'reused', got 'shared'"),
        ({"replication": "copied"}, "attention='reused' needs replication='tied', got 'copied'"),
        ({"replication": "aliased"}, "attention='reused' needs replication='tied', got 'aliased'"),
        ({"tied_parameters": "matrices"}, "attention='reused' needs tied_parameters='all', got 'matrices'"),
        ({"delta_rank": 2}, "attention='reused' needs delta_rank=0, got 2"),
        ({"compile_blocks": True}, "attention='reused' needs compile_blocks=False, got True"),
        ({"model": "causal-lm", "init_from": "x"}, "attention does not apply to the model 'causal-lm'"),
        ({"model": "my.py:net"}, "attention does not apply to the model 'my.py:net'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvConfig(**{"attention": "reused"} | changes)


def test_vector_environments_and_other_networks_refuse_it() -> None:
    with pytest.raises(ValueError, match="attention must be 'own' in the vector environment, got 'reused'"):
        check_supported(EnvConfig(attention="reused"))
    from tests.models import make_env

    env = make_env("llama")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="attention can be reused in a GPT-2, BERT or ViT"):
        add_reuse(env.trainer.network)
