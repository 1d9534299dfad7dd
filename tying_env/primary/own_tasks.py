"""What a network of the user's own learns: by a loss of its own, by that of transformers, or the next token."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tying_env.data.batches import arrays_of, count_examples, parts_of
from tying_env.primary.tasks import Measured, Task, some_of, token_loss

# (model, batch on its device) -> the mean loss, a scalar.
Loss = Callable[[nn.Module, Any], Tensor]

# The label of a place where nothing is predicted, as torch's cross-entropy and transformers have it.
IGNORED = -100


class OwnLM(Task):
    """Predict every token from those before it, for a module of the user's own.

    Args:
        loss: (model, windows (B, T + 1)) -> the mean loss, a scalar; by default the cross-entropy of what
            `model(input_ids)` returns: logits, or an object with `.logits`.
    """

    foreign = True

    def __init__(self, loss: Loss | None = None) -> None:
        self._own = None if loss is None else CustomTask(loss)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean loss of windows (B, T + 1): tokens 0..T-1 are read, tokens 1..T predicted.

        Raises:
            TypeError: the model returns no logits (B, T, V), or the loss is no scalar.
        """
        return self.measure(model, batch).loss

    def measure(self, model: nn.Module, batch: Tensor, *, logits: bool = False) -> Measured:
        """Return the loss, and logits at some of the B * T positions if asked for; none with a loss of its own."""
        if self._own is not None:
            return self._own.measure(model, batch)
        inputs, targets = batch[:, :-1], batch[:, 1:]  # (B, T) each
        with without_cache(model):
            scores = logits_of(model(inputs), inputs, type(model).__name__)  # (B, T, V)
        return Measured(token_loss(scores, targets), logits=some_of(scores.flatten(0, 1)) if logits else None)

    def count_tokens(self, batch: Tensor) -> int:
        """Return B * T."""
        return batch.shape[0] * (batch.shape[1] - 1)


def logits_of(result: Any, input_ids: Tensor, name: str) -> Tensor:
    """Return the logits (B, T, V) in what a language model of the user's own returned for tokens (B, T).

    Raises:
        TypeError: there are none; the message has the name of the model.
    """
    scores = getattr(result, "logits", result)
    if not isinstance(scores, Tensor) or scores.ndim != 3 or scores.shape[:2] != input_ids.shape:
        found = f"a tensor of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(result).__name__
        raise TypeError(
            "a language model must return logits (B, T, V), or an object with .logits, for token ids of shape "
            f"{tuple(input_ids.shape)}; {name} returned {found}"
        )
    return scores


class CustomTask(Task):
    """The user's own loss; by default that of a transformers model, whose batch has `labels` beside its inputs.

    The loss is a mean over predictions: the whole numbers in `labels` other than -100, where a batch has them, else its
    examples. So parts of a batch, processes and batches of a measurement weigh as much as is predicted in them.
    """

    even = False
    foreign = True

    def __init__(self, loss: Loss | None = None) -> None:
        self._loss = loss

    def count(self, model: nn.Module, batch: Any) -> int:
        """Return the labels that count, or the examples; causal models of transformers skip each sequence's first."""
        labels = (parts_of(batch) or {}).get("labels")
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            return count_examples(batch)
        shifted = self._loss is None and getattr(model, "loss_type", "") in (None, "ForCausalLM")
        return int((labels[:, 1:] if shifted else labels).ne(IGNORED).sum())

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the user's loss.

        Raises:
            TypeError: it is no scalar tensor.
        """
        return self.measure(model, batch).loss

    def measure(self, model: nn.Module, batch: Any, *, logits: bool = False) -> Measured:
        """Return the user's loss; logits, if asked for, where a transformers model gives one for each label.

        Raises:
            TypeError: the loss is no scalar tensor.
        """
        with without_cache(model):
            loss, result = transformers_loss(model, batch) if self._loss is None else (self._loss(model, batch), None)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"loss(model, batch) must return a scalar tensor, got {found}")
        return Measured(loss.reshape(()), logits=_labelled(result, batch) if logits and result is not None else None)

    def count_tokens(self, batch: Any) -> int:
        """Return the elements of `input_ids`, or of a first array of whole numbers (B, T); else the examples."""
        first = (parts_of(batch) or {}).get("input_ids", next(arrays_of(batch)))
        tokens = isinstance(first, Tensor) and first.ndim == 2 and first.dtype == torch.int64
        return int(first.numel()) if tokens else count_examples(batch)


@contextlib.contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Have a model of transformers keep no keys and values for tokens to come, which training and measuring never see.

    A cache has a place for each layer: compiled blocks would be compiled one by one for theirs, up to torch's limit.
    """
    from transformers import PretrainedConfig

    # Of transformers alone: a configuration of the user's own may be frozen, or mean something else by that name.
    held = {
        id(config): config
        for m in model.modules()
        if isinstance(config := getattr(m, "config", None), PretrainedConfig)
    }
    configs: list[Any] = [config for config in held.values() if getattr(config, "use_cache", None) is True]
    try:
        for config in configs:
            config.use_cache = False
        yield
    finally:
        for config in configs:
            config.use_cache = True


def transformers_loss(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """Return `model(**batch).loss`, and all that the model returned.

    Raises:
        TypeError: the batch is no dictionary, or the model gives no loss for it.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"batches must be dictionaries of inputs and labels, got {type(batch).__name__}; or give loss=")
    result = model(**batch)
    loss = getattr(result, "loss", None)
    if loss is None:
        raise TypeError(f"{type(model).__name__} gives no loss for {sorted(batch)}: add 'labels' to it, or give loss=")
    assert isinstance(loss, Tensor)
    return loss, result


def _labelled(result: Any, batch: Mapping[str, Any]) -> Tensor | None:
    """Return logits of a transformers model where a label is given; None unless there is one class for each place."""
    scores, labels = getattr(result, "logits", None), batch.get("labels")
    if not (isinstance(scores, Tensor) and isinstance(labels, Tensor)) or labels.is_floating_point():
        return None
    if scores.shape[:-1] != labels.shape or scores.shape[-1] < 2:
        return None
    return some_of(scores[labels != IGNORED]) if (labels == IGNORED).any() else some_of(scores.flatten(0, -2))
