"""What the primary network learns: a batch in, a mean loss in nats out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tying_env.data.batches import Batch, count_examples, cut, mapped
from tying_env.primary.dependence import spaced
from tying_env.primary.factorised import FactorisedHead
from tying_env.primary.kernels.head import linear_cross_entropy

# Types of decoders whose scores are the last hidden states times the head's matrix, and nothing more.
PLAIN_HEADS = frozenset({"gemma", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3"})


class Measured(NamedTuple):
    """What a network makes of a batch."""

    loss: Tensor  # mean in nats, a scalar
    correct: Tensor | None = None  # examples classified correctly, a scalar; None where nothing is classified
    logits: Tensor | None = None  # at some of its positions, (P, V); None where not asked for, or not known


class Task(ABC):
    """Turns a batch into a loss.

    Attributes:
        even: whether every example has as many predictions, so that examples weigh alike.
        foreign: whether the network is code from elsewhere, which may draw numbers from any generator that code shares.
    """

    even = True
    foreign = False

    def count(self, model: nn.Module, batch: Any) -> int:
        """Return of how many predictions the loss of a batch is the mean: what it weighs among others."""
        return count_examples(batch)

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the mean loss per prediction in nats, a scalar."""

    def measure(self, model: nn.Module, batch: Any, *, logits: bool = False) -> Measured:
        """Return the loss, and what else is measured; `logits` asks for some."""
        return Measured(self.loss(model, batch))

    def without_padding(self, batch: Batch) -> Iterator[Batch]:
        """Yield the examples of a batch in batches that have no padding."""
        yield batch

    @abstractmethod
    def count_tokens(self, batch: Any) -> int:
        """Return how many tokens of the batch count as trained on."""


class CausalLM(Task):
    """Predict every token from those before it, for transformers models with a base model and an output embedding."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy of windows (B, T + 1): tokens 0..T-1 are read, tokens 1..T predicted."""
        return self.measure(model, batch).loss

    def measure(self, model: nn.Module, batch: Tensor, *, logits: bool = False) -> Measured:
        """Return the loss, and logits at some of the B * T positions if asked for."""
        return self._read(model, batch, logits)[0]

    def _read(self, model: nn.Module, batch: Tensor, logits: bool = False) -> tuple[Measured, Any]:
        """Return what is measured, and what the base model gave."""
        inputs, targets = batch[:, :-1], batch[:, 1:]  # (B, T) each
        decoder: Any = model
        output = decoder.base_model(input_ids=inputs, use_cache=False)
        hidden = output.last_hidden_state.flatten(0, 1)  # (B * T, D)
        if isinstance(head := model.get_submodule("lm_head"), FactorisedHead):
            hidden = head.narrow(hidden)  # (B * T, E)
        weight = model.get_parameter("lm_head.weight")  # (V, D), or (V, E)
        return _of_head(hidden, weight, targets.flatten(), logits), output

    def count_tokens(self, batch: Tensor) -> int:
        """Return B * T."""
        return batch.shape[0] * (batch.shape[1] - 1)


class PonderingLM(CausalLM):
    """`CausalLM` for a network whose positions halt, and whose time costs; see `tying_env.primary.universal`.

    Args:
        cost: of a layer more at every position, in nats.
    """

    def __init__(self, cost: float) -> None:
        self.cost = cost

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy, with the gradient of that and of the cost of time.

        The value is the cross-entropy alone: losses are nats per token whatever time costs.
        """
        measured, output = self._read(model, batch)
        cost: Tensor = self.cost * output["ponder_cost"]
        return measured.loss + (cost - cost.detach())


class DecoderLM(Task):
    """Predict every token from those before it, for any decoder of transformers.

    Where scores are the plain product of the last hidden states and a matrix, they are computed a few rows at a time;
    other heads, with a bias, a scale or a soft cap, are left to the model.
    """

    foreign = True

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy of windows (B, T + 1): tokens 0..T-1 are read, tokens 1..T predicted."""
        return self.measure(model, batch).loss

    def measure(self, model: nn.Module, batch: Tensor, *, logits: bool = False) -> Measured:
        """Return the loss, and logits at some of the B * T positions if asked for."""
        inputs, targets = batch[:, :-1], batch[:, 1:]  # (B, T) each
        decoder: Any = model
        head = decoder.get_output_embeddings()
        if decoder.config.model_type in PLAIN_HEADS and getattr(head, "bias", None) is None:
            hidden = decoder.base_model(input_ids=inputs, use_cache=False).last_hidden_state  # (B, T, D)
            return _of_head(hidden.flatten(0, 1), head.weight, targets.flatten(), logits)
        scores = decoder(input_ids=inputs, use_cache=False).logits  # (B, T, V)
        return Measured(token_loss(scores, targets), logits=some_of(scores.flatten(0, 1)) if logits else None)

    def count_tokens(self, batch: Tensor) -> int:
        """Return B * T."""
        return batch.shape[0] * (batch.shape[1] - 1)


def token_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of scores (B, T, V) for tokens (B, T)."""
    flat = scores.flatten(0, 1)
    precise = flat.float() if flat.dtype in (torch.bfloat16, torch.float16) else flat
    return F.cross_entropy(precise, targets.flatten())


class MaskedLM(Task):
    """Predict the tokens that `tying_env.data.masking` hid, for transformers' `BertForMaskedLM`.

    The head is computed where tokens are hidden, at M of T places.
    """

    def count(self, model: nn.Module, batch: Mapping[str, Tensor]) -> int:
        """Return the hidden tokens, B * M."""
        return batch["targets"].numel()

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of the hidden tokens: `input_ids` (B, T), `positions` and `targets` (B, M)."""
        return self.measure(model, batch).loss

    def measure(self, model: nn.Module, batch: Mapping[str, Tensor], *, logits: bool = False) -> Measured:
        """Return the loss, and logits at some of the B * M hidden tokens if asked for."""
        hidden = model.get_submodule("bert")(input_ids=batch["input_ids"]).last_hidden_state  # (B, T, D)
        places = batch["positions"][..., None].expand(-1, -1, hidden.shape[-1])  # (B, M, D)
        scores = model.get_submodule("cls")(hidden.gather(1, places)).flatten(0, 1)  # (B * M, V + 1)
        loss = F.cross_entropy(scores.float() if scores.dtype == torch.bfloat16 else scores, batch["targets"].flatten())
        return Measured(loss, logits=some_of(scores) if logits else None)

    def count_tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return B * T: all tokens are read."""
        return batch["input_ids"].numel()


class Classification(Task):
    """Name the class of an example: `labels` (B,) in the batch."""

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy."""
        return self.measure(model, batch).loss

    def measure(self, model: nn.Module, batch: Mapping[str, Tensor], *, logits: bool = False) -> Measured:
        """Return the loss, how many examples are classified correctly, and their logits if asked for."""
        scores = self.scores(model, batch).float()  # (B, classes)
        labels = batch["labels"]
        correct = (scores.detach().argmax(-1) == labels).sum()
        return Measured(F.cross_entropy(scores, labels), correct, some_of(scores) if logits else None)

    @abstractmethod
    def scores(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the scores of the classes, (B, classes)."""


class ImageClassification(Classification):
    """Name the class of an image, for transformers' `ViTForImageClassification`.

    Args:
        patches: squares that an image is cut into, the tokens of this network.
    """

    def __init__(self, patches: int) -> None:
        self.patches = patches

    def scores(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return those of `pixel_values` (B, C, H, W)."""
        scores: Tensor = model(pixel_values=batch["pixel_values"]).logits
        return scores

    def count_tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return B times the patches of an image."""
        return len(batch["labels"]) * self.patches


class SpeechClassification(Classification):
    """Name the class of an utterance, for `tying_env.primary.speech_encoder.SpeechEncoder`."""

    def scores(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return those of `frames` (B, T, F), of which the first `lengths` (B,) are read."""
        scores: Tensor = model(batch["frames"], batch["lengths"])
        return scores

    def without_padding(self, batch: Batch) -> Iterator[Batch]:
        """Yield the utterances one at a time, each as long as it is."""
        for one in cut(batch, 1):
            yield {**one, "frames": one["frames"][:, : int(one["lengths"][0])]}

    def count_tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return the frames that are read, without padding."""
        return int(batch["lengths"].sum())


def _of_head(hidden: Tensor, weight: Tensor, targets: Tensor, logits: bool) -> Measured:
    """Return the loss of hidden states (N, D) under a head (V, D), and logits at some of the N positions."""
    loss = linear_cross_entropy(hidden, weight, targets)
    if not logits:
        return Measured(loss)
    return Measured(loss, logits=spaced(hidden.detach(), len(weight)) @ weight.detach().T)


def some_of(scores: Tensor) -> Tensor:
    """Return the logits (N, V) at as many positions as are looked at."""
    return spaced(scores.detach(), scores.shape[-1])


def to_device(batch: Batch, device: torch.device) -> Any:
    """Copy a batch to the device, whole numbers as int64, without waiting where the device can work meanwhile."""
    return mapped(batch, lambda array: _on(array, device))


def _on(array: Any, device: torch.device) -> Tensor:
    if isinstance(array, np.ndarray):
        whole = np.issubdtype(array.dtype, np.integer)
        array = torch.from_numpy(array.astype(np.int64) if whole else array)
    tensor: Tensor = array
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
