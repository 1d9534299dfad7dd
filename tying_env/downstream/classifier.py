"""A trained network with a new classification head: all of it trains, or the head, or low-rank updates and the head."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tying_env.config.network import DECODER, TEXT
from tying_env.downstream.settings import TuningMethod
from tying_env.runs.network_file import SavedNetwork, load_network
from tying_env.seeding import torch_randomness_from

_DROPOUT = 0.1
# What queries and values are computed by: in GPT-2; BERT; LLaMA, Qwen and Mistral; GPT-NeoX; Phi 3.
_ATTENTION_INPUTS = ("c_attn", "query", "value", "q_proj", "v_proj", "query_key_value", "qkv_proj")


class Classifier(nn.Module):
    """A transformer without its own head, and a linear one on what it makes of a sentence.

    A GPT-2, or another decoder, is read at its last token, which alone has seen all others; a BERT by the mean over its
    tokens, for it was trained without a token that stands for the whole.

    Args:
        backbone: a transformers base model, for token ids and attention mask.
        width: D of its hidden states.
        classes: how many classes.
        last: whether to read the last token instead of the mean.
        method: what of it trains.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int, last: bool, method: TuningMethod) -> None:
        super().__init__()
        self.method = method
        self.backbone = backbone
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Linear(width, classes)
        self._last = last

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores (B, classes) for token ids (B, T), padded behind, and their mask (B, T)."""
        longest = int(attention_mask.sum(1).max())  # columns of padding alone cost time
        input_ids, attention_mask = input_ids[:, :longest], attention_mask[:, :longest]
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, D)
        if self._last:
            places = (attention_mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])  # (B, 1, D)
            read = hidden.gather(1, places).squeeze(1)  # (B, D)
        else:
            weights = attention_mask[..., None].to(hidden.dtype)  # (B, T, 1)
            read = (hidden * weights).sum(1) / weights.sum(1)
        scores: Tensor = self.head(self.dropout(read))
        return scores


def classification_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean cross-entropy of `input_ids`, `attention_mask` (B, T) and `labels` (B,)."""
    return F.cross_entropy(model(batch["input_ids"], batch["attention_mask"]).float(), batch["labels"])


def make_classifier(
    network: Path | SavedNetwork,
    method: TuningMethod,
    generator: torch.Generator,
    *,
    classes: int = 2,
    rank: int = 8,
    device: str | torch.device = "cpu",
) -> Classifier:
    """Return a trained network with a new head.

    Args:
        network: a network file of a GPT-2, a BERT or another decoder of transformers; or such a network that is read
            already and may be changed.
        method: "full": everything trains, tied layers stay tied. "lora": low-rank updates of the attention's input
            matrices and the head train (Hu et al., 2022), through peft; tied layers keep their weights, and each has
            updates of its own. "head": the head alone trains.
        generator: draws the head and the updates; on the CPU.
        classes: how many classes.
        rank: of the low-rank updates.
        device: where the network goes.

    Raises:
        ValueError: the file is damaged, the network reads no text, or an argument is out of range.
        FileNotFoundError, ImportError: there is no such file; peft is not installed.
    """
    if method not in get_args(TuningMethod):
        raise ValueError(f"method must be one of {', '.join(map(repr, get_args(TuningMethod)))}, got {method!r}")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank!r}")
    saved = network if isinstance(network, SavedNetwork) else load_network(network)
    model = saved.config.model
    if model not in (*TEXT, DECODER):
        raise ValueError(
            f"downstream tasks are of text: the network must be a {', a '.join(TEXT)} or a {DECODER}, got {model!r}"
        )
    if method == "lora" and saved.config.delta_rank:
        raise ValueError("the network has low-rank deltas already (delta_rank): choose the method 'full' or 'head'")
    whole: Any = saved.network.model
    backbone: nn.Module = whole.base_model
    with torch_randomness_from(generator):
        if method == "lora":
            backbone = _with_lora(backbone, rank)
        classifier = Classifier(backbone, saved.config.n_embd, classes, model != "bert", method)
    if method == "head":
        backbone.requires_grad_(False)
    dtype = next(whole.parameters()).dtype
    return classifier.to(device=device, dtype=dtype)


def _with_lora(backbone: nn.Module, rank: int) -> nn.Module:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("low-rank updates need the package `peft` (pip install 'tying-env[finetune]')") from error
    names = {name.rpartition(".")[2] for name, _ in backbone.named_modules()}
    targets = [name for name in _ATTENTION_INPUTS if name in names]
    if not targets:
        raise ValueError(
            f"low-rank updates need attention matrices of the names {', '.join(_ATTENTION_INPUTS)}, and "
            f"{type(backbone).__name__} has none of them: choose the method 'full' or 'head'"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets,
        fan_in_fan_out="c_attn" in targets,  # GPT-2's matrices are stored the other way round
    )
    adapted: nn.Module = inject_adapter_in_model(config, backbone)
    return adapted
