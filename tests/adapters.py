"""Adapters of peft on a small LLaMA: all kinds that it has."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import transformers
from torch import nn

from tests.families import Batch, tokens
from tests.models import LLAMA, L

TARGETS = ["q_proj", "v_proj"]
LORA: dict[str, Any] = {"r": 2, "target_modules": TARGETS}
PROMPT: dict[str, Any] = {"num_virtual_tokens": 2, "task_type": "CAUSAL_LM"}


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
    "lora, head saved": (lambda: peft.LoraConfig(**LORA, modules_to_save=["lm_head"]), None),
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
    "adamss": (lambda: peft.AdamssConfig(r=4, num_subspaces=2, target_modules=TARGETS), None),
    "beft": (lambda: peft.BeftConfig(target_modules=TARGETS), None),
    "c3a": (lambda: peft.C3AConfig(block_size=8, target_modules=TARGETS), None),
    "deft": (lambda: peft.DeftConfig(**LORA), None),
    "delora": (lambda: peft.DeloraConfig(**LORA), None),
    "frod": (lambda: peft.FrodConfig(target_modules=TARGETS, progressbar=False), None),
    "glora": (lambda: peft.GloraConfig(**LORA), None),
    "gralora": (lambda: peft.GraloraConfig(**LORA), None),
    "hira": (lambda: peft.HiraConfig(**LORA), None),
    "lily": (lambda: peft.LilyConfig(**LORA), None),
    "miss": (lambda: peft.MissConfig(**LORA), None),
    "osf": (lambda: peft.OSFConfig(target_modules=TARGETS, effective_rank=4), None),
    "peanut": (lambda: peft.PeanutConfig(**LORA), None),
    "poly": (lambda: peft.PolyConfig(**LORA, task_type="CAUSAL_LM"), None),
    "psoft": (lambda: peft.PsoftConfig(**LORA), None),
    "pvera": (lambda: peft.PveraConfig(r=2, target_modules=["q_proj"]), None),
    "randlora": (lambda: peft.RandLoraConfig(r=2, target_modules=["q_proj"]), None),
    "road": (lambda: peft.RoadConfig(group_size=2, target_modules=TARGETS), None),
    "shira": (lambda: peft.ShiraConfig(r=2, random_seed=0, target_modules=TARGETS), None),
    "supertuning": (lambda: peft.SupertuningConfig(target_modules=TARGETS, sparsity=0.9), None),
    "tinylora": (lambda: peft.TinyLoraConfig(r=2, u=4, target_modules=TARGETS), None),
    "unilora": (lambda: peft.UniLoraConfig(r=2, target_modules=TARGETS), None),
    "waveft": (lambda: peft.WaveFTConfig(n_frequency=6, target_modules=TARGETS), None),
    "trainable tokens": (lambda: peft.TrainableTokensConfig(token_indices=[1, 2]), None),
    "adaption prompt": (
        lambda: peft.AdaptionPromptConfig(adapter_len=2, adapter_layers=L, task_type="CAUSAL_LM"),
        None,
    ),
    "prompt tuning": (lambda: peft.PromptTuningConfig(**PROMPT), None),
    "p-tuning": (lambda: peft.PromptEncoderConfig(**PROMPT, encoder_hidden_size=8), None),
    "multitask prompt tuning": (lambda: peft.MultitaskPromptTuningConfig(**PROMPT), None),
    "prefix tuning": (lambda: peft.PrefixTuningConfig(**PROMPT), None),
    "cpt": (
        lambda: peft.CPTConfig(
            task_type="CAUSAL_LM", cpt_token_ids=[1, 2], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 2]
        ),
        None,
    ),
    "cartridge": (lambda: peft.CartridgeConfig(**PROMPT), None),
    "shadow": (lambda: peft.ShadowConfig(task_type="CAUSAL_LM"), None),
    "layer norms": (lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]), None),
}


def adapted(kind: str) -> nn.Module:
    config, change = KINDS[kind]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, attention_bias=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers and peft, about each other
        wrapped: nn.Module = peft.get_peft_model(model, config())
    if change is not None:
        change(wrapped)
    return wrapped


def draw(kind: str, rng: np.random.Generator) -> Batch:
    """Return token ids and labels; where an adapter knows tasks, that of each example as well."""
    batch = tokens(rng)
    if kind in ("poly", "multitask prompt tuning"):
        batch["task_ids"] = np.zeros(len(batch["labels"]), dtype=np.int64)
    return batch
