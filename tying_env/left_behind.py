"""Notices a network that computes with what it was to leave behind: replaced weights, or the original of a copy.

`tying_env.references` finds what hangs on the network. What is looked up by name when it is needed, a global variable
say, shows in a training step only: there it gets a gradient.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from tying_env.slots import Weights


class LeftBehind:
    """Tensors that no training step may touch. Copies and pickles of it watch nothing."""

    def __init__(self) -> None:
        self._originals: list[tuple[str, weakref.ref[Tensor]]] = []
        self._replaced: list[tuple[str, weakref.ref[Tensor]]] = []

    def __reduce__(self) -> tuple[type[LeftBehind], tuple[()]]:
        return LeftBehind, ()

    def watch_original(self, model: nn.Module) -> None:
        """Watch the weights and buffers of the model that the network is a copy of."""
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._originals.append((f"{name!r} of the model that it is a copy of", weakref.ref(tensor)))

    def watch_replaced(self, before: Sequence[Weights], after: Sequence[Weights]) -> None:
        """Watch what the blocks computed with before a change of the tying and none does after it, while it is held."""
        present = {id(p) for weights in after for p in weights.values()}
        self._replaced = [(name, ref) for name, ref in self._replaced if id(ref()) not in present and ref() is not None]
        for i, weights in enumerate(before):
            for name, p in weights.items():
                if id(p) not in present:
                    self._replaced.append((f"{name!r} of block {i} as it was before a tying", weakref.ref(p)))

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """Compute gradients in here: what is watched must have none from it.

        It is watched for as long as anything holds it: a network may come to use it much later.

        Raises:
            ValueError: it has; the message names what.
        """
        replaced, originals = _held(self._replaced), _held(self._originals)
        trained = [tensor.requires_grad for _, tensor in replaced]
        for _, tensor in replaced:
            tensor.requires_grad_(True)  # what does not train would not show
        marks = [_mark(tensor) for _, tensor in (*replaced, *originals)]
        try:
            yield
        finally:
            for (_, tensor), former in zip(replaced, trained, strict=True):
                tensor.requires_grad_(former)
        for (name, tensor), mark in zip((*replaced, *originals), marks, strict=True):
            if _mark(tensor) != mark:
                raise ValueError(
                    f"the network computes with {name}: something refers to it, a global variable perhaps. Look "
                    "weights up in their module each time; and where model= is a module, give a function that makes one"
                )


def _held(left: list[tuple[str, weakref.ref[Tensor]]]) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, ref in left if (tensor := ref()) is not None]


def _mark(tensor: Tensor) -> tuple[int, int, int]:
    """Return what differs once a tensor has got a gradient, or another value."""
    grad = tensor.grad if tensor.is_leaf else None
    return _version(tensor), id(grad), -1 if grad is None else _version(grad)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
