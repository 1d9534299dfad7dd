"""Adapters of any kind, in a network that stands still otherwise: all that trains in a block is tied."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import nn

from tests.models import LLAMA, TRAIN, draw
from tying_env.env import LayerTyingEnv

TARGETS = ["q_proj", "v_proj"]
LORA: dict[str, Any] = {"r": 2, "target_modules": TARGETS}


def with_norms(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if "layernorm" in name:
            parameter.requires_grad_(True)


def everything(model: Any) -> None:
    model.requires_grad_(True)


# name -> the adapter, and what is done to the network with it
KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], None] | None]] = {
    "lora": (lambda: peft.LoraConfig(**LORA), None),
    "dora": (lambda: peft.LoraConfig(**LORA, use_dora=True), None),
    "lora, biases": (lambda: peft.LoraConfig(**LORA, bias="all"), None),
    "lora, modules_to_save": (lambda: peft.LoraConfig(**LORA, modules_to_save=["o_proj"]), None),
    "lora, norms": (lambda: peft.LoraConfig(**LORA), with_norms),
    "lora, everything": (lambda: peft.LoraConfig(**LORA), everything),
    "adalora": (lambda: peft.AdaLoraConfig(init_r=3, target_r=2, target_modules=TARGETS, total_step=100), None),
    "ia3": (
        lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        None,
    ),
    "loha": (lambda: peft.LoHaConfig(**LORA), None),
    "lokr": (lambda: peft.LoKrConfig(**LORA), None),
    "oft": (lambda: peft.OFTConfig(r=0, oft_block_size=4, target_modules=TARGETS), None),
    "boft": (lambda: peft.BOFTConfig(boft_block_size=4, target_modules=TARGETS), None),
    "hra": (lambda: peft.HRAConfig(**LORA), None),
    "vera": (lambda: peft.VeraConfig(r=2, target_modules=["q_proj"]), None),
    "fourierft": (lambda: peft.FourierFTConfig(n_frequency=6, target_modules=TARGETS), None),
    "vb-lora": (
        lambda: peft.VBLoRAConfig(r=2, num_vectors=6, vector_length=4, topk=2, target_modules=TARGETS),
        None,
    ),
    "layer norms": (lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]), None),
}


def adapted(kind: str) -> nn.Module:
    config, change = KINDS[kind]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, attention_bias=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers and peft, about each other
        wrapped = peft.get_peft_model(model, config())
    inner: nn.Module = wrapped.base_model.model
    if change is not None:
        change(inner)
    return inner


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vb-lora"])
def test_all_that_trains_in_a_block_is_tied_and_computes_as_if_copied(kind: str) -> None:
    settings = TRAIN | {"learning_rate": 0.05}
    env = LayerTyingEnv(model=lambda: adapted(kind), batches=lambda rng: draw("llama", rng), **settings)
    env.reset(seed=0)
    for action in ([0, 0, 2, 2], [0, 1, 0, 0]):
        env.step(np.array(action))
    trainer = env.trainer
    blocks = [dict(block.named_parameters()) for block in trainer.network.blocks]
    for name, parameter in blocks[0].items():
        assert (parameter is blocks[2][name]) == parameter.requires_grad, name
        assert parameter is not blocks[1][name]
        if parameter.requires_grad:
            assert not torch.equal(parameter, blocks[1][name]), name
    in_blocks = sum(p.numel() for p in blocks[0].values() if p.requires_grad)
    assert trainer.count_conventional() - trainer.count_trainable() == 2 * in_blocks > 0
    plain = adapted(kind).eval()
    plain.load_state_dict(trainer.network.model.state_dict())
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(trainer.network.model.eval()(tokens).logits, plain(tokens).logits)


def test_adapters_that_blocks_share_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"blocks 0 and 1 share 'self_attn.q_proj.vblora_vector_bank"):
        LayerTyingEnv(model=lambda: adapted("vb-lora"), batches=lambda rng: draw("llama", rng), **TRAIN)
