"""Models of transformers: their blocks are found, tied within their kind, and trained."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import transformers
from gymnasium.utils.env_checker import check_env
from torch import nn
from torch._dynamo.utils import counters

from tests.models import FAMILIES, LLAMA, TRAIN, L, draw, make_env, make_model
from tying_env import partition
from tying_env.env import LayerTyingEnv
from tying_env.primary.blocks import find_blocks


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "t5"])
def test_the_blocks_of_a_transformers_model_are_found_tied_and_trained(family: str) -> None:
    assert len(find_blocks(make_model(family))) == 1
    env = make_env(family)
    assert env.config.n_layer == L
    env.reset(seed=0)
    conventional = env.trainer.count_conventional()
    for action in ([0, 0, 1, 3], [0, 1, 2, 2], [0, 0, 0, 0]):
        observation, reward, terminated, _, info = env.step(np.array(action))
        assert observation.tolist() == partition.canonicalise(action).tolist()
        assert not terminated
        assert reward < 0
        blocks = env.trainer.network.blocks
        pairs = [(p, q) for p, q in zip(blocks[0].parameters(), blocks[1].parameters(), strict=True)]
        assert all((p is q) == (action[1] == 0) for p, q in pairs)
    block = sum(p.numel() for p in blocks[0].parameters())
    assert info["trainable_parameters"] == conventional - 3 * block
    assert conventional == sum(p.numel() for p in make_model(family).parameters())


def test_the_encoder_and_the_decoder_of_a_t5_are_tied_within_themselves() -> None:
    assert find_blocks(make_model("t5")) == ("encoder.block", "decoder.block")
    with pytest.raises(ValueError, match=r"missing.* in block 3; unequal_blocks='within-kind'"):
        make_env("t5")
    env = make_env("t5", unequal_blocks="within-kind")
    env.reset(seed=0)
    assert env.kinds.lowest.tolist() == [0, 0, 0, 3, 3, 3, 3]
    assert env.action_space == gym.spaces.MultiDiscrete([1, 2, 3, 1, 2, 3, 4])
    _, _, terminated, _, info = env.step(np.array([0, 0, 1, 0, 0, 0, 3]))
    assert info["tying"].tolist() == [0, 0, 0, 3, 3, 3, 6]
    assert not terminated
    # The first block of each stack has the table of relative positions, which stays its own, and trains.
    tables = [p for name, p in env.trainer.named_parameters() if "relative_attention_bias" in name]
    assert len(tables) == 2
    before = [p.detach().clone() for p in tables]
    env.step(np.array([0, 0, 0, 0, 1, 0, 0]))
    assert not any(torch.equal(p, q) for p, q in zip(tables, before, strict=True))
    assert {id(p) for p in tables} < {id(p) for group in env.trainer.optimizer.param_groups for p in group["params"]}
    check_env(make_env("t5", unequal_blocks="within-kind"), skip_render_check=True)


def test_mixtures_of_experts_among_dense_layers_are_tied_within_their_kind() -> None:
    config = transformers.Qwen2MoeConfig(
        **LLAMA,
        num_experts=3,
        num_experts_per_tok=2,
        decoder_sparse_step=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    )

    def make(**settings: Any) -> LayerTyingEnv:
        return LayerTyingEnv(
            model=lambda: transformers.Qwen2MoeForCausalLM(config),
            batches=lambda rng: draw("llama", rng),
            **TRAIN | settings,
        )

    with pytest.raises(ValueError, match=r"'mlp.gate_proj.weight' is .* in block 0 and missing in block 1"):
        make()
    env = make(unequal_blocks="within-kind")
    env.reset(seed=0)
    assert env.step(np.array([0, 0, 0, 0]))[-1]["tying"].tolist() == [0, 1, 0, 1]


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
def test_a_decoder_whose_configuration_asks_for_a_cache_is_compiled_once_for_all_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = nn.Module.compile
    # The same graphs and limits, without code made of them.
    monkeypatch.setattr(nn.Module, "compile", lambda block: compiled(block, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    config = transformers.LlamaConfig(**LLAMA | {"num_hidden_layers": 10})
    assert config.use_cache
    env = LayerTyingEnv(
        model=lambda: transformers.LlamaForCausalLM(config),
        batches=lambda rng: draw("llama", rng),
        **TRAIN | {"compile_blocks": True, "k": 1},
    )
    env.reset(seed=0)
    graphs = []
    for target in (0, 3):
        env.step(np.minimum(np.arange(10), target))
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[1] <= 4
    assert counters["frames"]["total"] == counters["frames"]["ok"]
    assert config.use_cache
