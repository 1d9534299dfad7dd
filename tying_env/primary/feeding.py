"""Gives a training its batches: this process's share, on its device, and the next one ahead of time."""

from typing import Any

import torch

from tying_env.data import Batches
from tying_env.data.batches import count_examples, take
from tying_env.distributed import world
from tying_env.primary.tasks import to_device


class Feed:
    """The training batches of this process.

    Args:
        batches: all batches, which every process draws.
        device: where they go.
        ahead: whether `fetch_ahead` draws a batch; if not, it does nothing.
    """

    def __init__(self, batches: Batches, device: torch.device, ahead: bool = False) -> None:
        self.batches = batches
        self._device, self._ahead = device, ahead
        self._fetched: tuple[dict[str, Any], tuple[Any, int]] | None = None  # the position before a batch, and that

    def next(self) -> tuple[Any, int]:
        """Return this process's share of the next batch, and the examples of all processes.

        Raises:
            ValueError: there are fewer examples than processes.
        """
        if self._fetched is None:
            return self._draw()
        (_, drawn), self._fetched = self._fetched, None
        return drawn

    def fetch_ahead(self) -> None:
        """Draw the next batch, and copy it to the device, while the present one is computed."""
        if self._ahead:
            self._fetched = self.batches.state_dict(), self._draw()

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next batch, ready for JSON."""
        return self.batches.state_dict() if self._fetched is None else self._fetched[0]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that `state_dict` gave.

        Raises:
            ValueError: it is no position of these batches; nothing is changed then.
        """
        self.batches.load_state_dict(state)
        self._fetched = None

    def _draw(self) -> tuple[Any, int]:
        batch = self.batches.next_batch()
        if (whole := count_examples(batch)) < world().size:
            raise ValueError(f"a batch must have an example for each of {world().size} processes, got {whole}")
        return to_device(take(batch, world().share(whole)), self._device), whole
