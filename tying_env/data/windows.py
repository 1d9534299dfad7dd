"""Batches of windows of a token array, drawn so that a run which stops resumes with the same batches.

Array legend: N tokens in a split, B windows in a batch, T inputs in a window. A window is T+1 tokens: the first T are
its inputs, the last T its targets.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.integer]


def check_windows(tokens: Tokens, seq_len: int) -> None:
    """Raises a ValueError unless `tokens` is a one-dimensional array of at least `seq_len + 2` tokens.

    That is one window and one token more, so that there is a choice of where it lies.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len must be at least 1, got {seq_len}")
    if tokens.ndim != 1:
        raise ValueError(f"tokens must be one-dimensional, got shape {tokens.shape}")
    if len(tokens) < seq_len + 2:
        raise ValueError(
            f"the split has {len(tokens)} tokens, but seq_len={seq_len} needs at least {seq_len + 2}: "
            "use a longer text or a smaller seq_len"
        )


def evaluation_windows(tokens: Tokens, seq_len: int, max_windows: int) -> Tokens:
    """Return windows that do not overlap, evenly spaced over the split and always the same.

    Args:
        tokens: Token ids of the split. # (N,)
        seq_len: Inputs per window, T.
        max_windows: How many windows at most; 0 means all that fit.

    Returns:
        Windows in the dtype of `tokens`; all of them are a view, fewer a copy. # (windows, T+1)

    Raises:
        ValueError: The split is too short (see `check_windows`), or `max_windows` is negative.
    """
    check_windows(tokens, seq_len)
    if max_windows < 0:
        raise ValueError(f"max_windows must be at least 0 (0: all windows), got {max_windows}")
    windows = np.lib.stride_tricks.sliding_window_view(tokens, seq_len + 1)[::seq_len]  # (all windows, T+1)
    if 0 < max_windows < len(windows):
        windows = windows[np.arange(max_windows) * len(windows) // max_windows]  # (max_windows, T+1)
    return windows


class _Windows:
    """What both samplers share: their arguments, and cutting windows out of the tokens."""

    def __init__(self, tokens: Tokens, batch_size: int, seq_len: int, rng: np.random.Generator) -> None:
        tokens = np.asarray(tokens)  # a plain array over the same memory: slices of np.memmap cost several times more
        check_windows(tokens, seq_len)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._tokens = tokens  # (N,)
        self._batch_size = batch_size
        self._seq_len = seq_len
        self._rng = rng

    def _cut(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        batch = np.empty((len(starts), self._seq_len + 1), dtype=np.int64)  # (B, T+1)
        for row, start in zip(batch, starts.tolist(), strict=True):
            row[:] = self._tokens[start : start + self._seq_len + 1]
        return batch

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Tokens are only read, so copies share them: a copied environment does not hold its corpus twice.
        memo[id(self._tokens)] = self._tokens
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


class ShuffledWindows(_Windows):
    """Training batches: every epoch cuts the split into new windows and goes through them in random order.

    An epoch draws an offset o in [0, T) and a permutation of the windows w = 0, 1, ...; window w has the inputs
    tokens[o + w*T : o + w*T + T] and the targets one token later. So every token is an input exactly once in an epoch,
    but for fewer than T at the start and at most T at the end. A batch that reaches the end of an epoch continues with
    the next one.

    Args:
        tokens: Token ids of the split; never written. # (N,)
        batch_size: Windows per batch, B.
        seq_len: Inputs per window, T.
        rng: This sampler's own generator: nothing else may draw from it.

    Raises:
        ValueError: The split is too short (see `check_windows`), or `batch_size` is below 1.
    """

    def __init__(self, tokens: Tokens, batch_size: int, seq_len: int, rng: np.random.Generator) -> None:
        super().__init__(tokens, batch_size, seq_len, rng)
        self._begin_epoch(0)

    @property
    def steps_per_epoch(self) -> float:
        """Batches that go through the split once."""
        return (len(self._tokens) - 1) // self._seq_len / self._batch_size

    @property
    def epoch(self) -> float:
        """Epochs drawn so far; 1.5 is half of the second."""
        return self._epoch + self._position / len(self._starts)

    def next_batch(self) -> npt.NDArray[np.int64]:
        """Return the next batch of windows, an array (B, T+1)."""
        parts = []
        wanted = self._batch_size
        while wanted:
            if self._position == len(self._starts):
                self._begin_epoch(self._epoch + 1)
            parts.append(self._starts[self._position : self._position + wanted])
            self._position += len(parts[-1])
            wanted -= len(parts[-1])
        return self._cut(np.concatenate(parts))

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, as values that JSON can hold (with NumPy's default generator)."""
        return {
            "tokens": len(self._tokens),
            "seq_len": self._seq_len,
            "epoch": self._epoch,
            "position": self._position,
            "rng_at_epoch_start": copy.deepcopy(self._rng_at_epoch_start),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; the batches that follow are those that followed then.

        Raises:
            ValueError: `state` is not one of this class, of this split and of this `seq_len`; nothing is changed then.
        """
        _check_keys(state, self.state_dict())
        for key, own in (("tokens", len(self._tokens)), ("seq_len", self._seq_len)):
            if state[key] != own:
                raise ValueError(f"the state was taken with {key}={state[key]!r}, this sampler has {key}={own}")
        for key in ("epoch", "position"):
            if type(state[key]) is not int or state[key] < 0:
                raise ValueError(f"the state's {key} must be an integer of at least 0, got {state[key]!r}")
        twin = copy.copy(self)
        twin._rng = _restored(self._rng, state["rng_at_epoch_start"])
        twin._begin_epoch(state["epoch"])
        if state["position"] > len(twin._starts):
            raise ValueError(
                f"the state's position is {state['position']}, but its epoch has {len(twin._starts)} windows"
            )
        twin._position = state["position"]
        self._rng.bit_generator.state = twin._rng.bit_generator.state
        twin._rng = self._rng
        self.__dict__.update(twin.__dict__)

    def _begin_epoch(self, epoch: int) -> None:
        self._rng_at_epoch_start = self._rng.bit_generator.state
        # In a split of less than two windows some offsets would leave none.
        offset = self._rng.integers(min(self._seq_len, len(self._tokens) - self._seq_len))
        windows = (len(self._tokens) - 1 - offset) // self._seq_len
        self._starts = offset + self._seq_len * self._rng.permutation(windows)  # (windows,)
        self._epoch = epoch
        self._position = 0


class RandomWindows(_Windows):
    """Batches of windows drawn uniformly and with replacement, each of the same chance wherever it lies in the split.

    Arguments and errors are those of `ShuffledWindows`.
    """

    def next_batch(self) -> npt.NDArray[np.int64]:
        """Return the next batch of windows, an array (B, T+1)."""
        return self._cut(self._rng.integers(len(self._tokens) - self._seq_len, size=self._batch_size))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator, as values that JSON can hold (with NumPy's default generator)."""
        return {"rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            ValueError: `state` is not one of this class; nothing is changed then.
        """
        _check_keys(state, self.state_dict())
        self._rng.bit_generator.state = _restored(self._rng, state["rng"]).bit_generator.state


def _check_keys(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    if not isinstance(state, Mapping) or set(state) != set(own):
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"the state must be a dictionary of {sorted(own)}, got {found}")


def _restored(rng: np.random.Generator, state: Any) -> np.random.Generator:
    """Return a new generator of the kind of `rng`, in `state`."""
    bits = type(rng.bit_generator)()
    try:
        bits.state = state
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        kind = type(bits).__name__
        raise ValueError(f"the state's generator is not one of the kind {kind}: {state!r}") from error
    return np.random.Generator(bits)
