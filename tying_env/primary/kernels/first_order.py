"""Where gradients are needed once: there kernels compute whose gradients have none themselves.

A training step of our own tasks is such a place. Everywhere else networks compute as torch and transformers do, so that
whoever has one in hand may differentiate its gradients, take many at once, trace it or transform it.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_ONCE: ContextVar[bool] = ContextVar("gradients are needed once", default=False)


@contextlib.contextmanager
def gradients_once(once: bool = True) -> Iterator[None]:
    """Say of what is computed in this block, backward passes included, that its gradients are needed once."""
    token = _ONCE.set(once)
    try:
        yield
    finally:
        _ONCE.reset(token)


def needed_once() -> bool:
    """Tell whether gradients of what is computed here are needed once."""
    return _ONCE.get()
