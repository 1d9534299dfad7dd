"""A forward pass that one block has for itself, in place of its class's."""

import weakref
from typing import Any

from torch import nn


class OwnForward:
    """What hangs as `forward` on a block. It knows its block weakly: whoever lets a network go frees it at once.

    (A block that held what holds the block would stay until Python's collector has gone through all there is.)

    An object and no function, so that a copy, or a pickle, of it is that of the copied block.
    """

    def __init__(self, block: nn.Module) -> None:
        self._of = weakref.ref(block)
        self._former = block.__dict__.get("forward")  # of this block alone, too; None: its class's

    @property
    def block(self) -> nn.Module:
        """The block that this hangs on."""
        block = self._of()
        assert block is not None
        return block

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the block computed before."""
        if self._former is not None:
            return self._former(*args, **kwargs)
        return type(self.block).forward(self.block, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_of": self.block}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_of": weakref.ref(state["_of"])})
