"""Windows: every token once per epoch, and a restored sampler continues with the very same batches."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tying_env.data import RandomWindows, ShuffledWindows, evaluation_windows

SAMPLERS = pytest.mark.parametrize("sampler", [ShuffledWindows, RandomWindows])
TOKENS = np.arange(103, dtype=np.uint16)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@SAMPLERS
def test_a_batch_holds_windows_of_consecutive_tokens(sampler) -> None:
    batch = sampler(TOKENS, 6, 9, rng()).next_batch()
    assert batch.shape == (6, 10)
    assert batch.dtype == np.int64
    assert (np.diff(batch, axis=1) == 1).all()  # TOKENS counts up


@settings(deadline=None)
@given(length=st.integers(3, 200), seq_len=st.integers(1, 30), seed=st.integers(0, 5))
def test_every_window_comes_exactly_once_per_epoch(length: int, seq_len: int, seed: int) -> None:
    if length < seq_len + 2:
        length += seq_len
    windows = ShuffledWindows(np.arange(length), 1, seq_len, rng(seed))
    for epoch in range(1, 4):
        starts = []
        while windows.epoch < epoch:
            starts.append(int(windows.next_batch()[0, 0]))
        first = min(starts)
        assert first < seq_len
        assert sorted(starts) == list(range(first, length - seq_len, seq_len))
        assert windows.epoch == epoch


def test_epochs_differ_in_offset_and_order() -> None:
    windows = ShuffledWindows(TOKENS, 1, 5, rng())
    epochs: list[list[int]] = [[] for _ in range(8)]
    while windows.epoch < 8:
        epochs[int(windows.epoch)].append(int(windows.next_batch()[0, 0]))
    assert len({min(starts) for starts in epochs}) > 1
    assert all(starts != sorted(starts) for starts in epochs)


def test_a_batch_at_the_end_of_an_epoch_continues_with_the_next() -> None:
    single = ShuffledWindows(TOKENS, 1, 10, rng())
    large = ShuffledWindows(TOKENS, 25, 10, rng())  # more windows than an epoch has
    assert large.next_batch().tolist() == [single.next_batch()[0].tolist() for _ in range(25)]
    assert large.epoch == single.epoch > 2


@SAMPLERS
@settings(deadline=None)
@given(before=st.integers(0, 40), batch_size=st.integers(1, 30), seq_len=st.integers(1, 60))
def test_a_restored_sampler_draws_the_same_batches(sampler, before: int, batch_size: int, seq_len: int) -> None:
    original = sampler(TOKENS, batch_size, seq_len, rng(1))
    for _ in range(before):
        original.next_batch()
    state = json.loads(json.dumps(original.state_dict()))
    restored = sampler(TOKENS, batch_size, seq_len, rng(2))
    restored.next_batch()
    restored.load_state_dict(state)
    assert restored.state_dict() == original.state_dict() == state
    for _ in range(12):
        assert (restored.next_batch() == original.next_batch()).all()


@SAMPLERS
def test_a_state_does_not_change_after_it_was_taken(sampler) -> None:
    windows = sampler(TOKENS, 7, 5, rng())
    state = windows.state_dict()
    kept = copy.deepcopy(state)
    for _ in range(20):
        windows.next_batch()
    assert state == kept


GOOD = ShuffledWindows(TOKENS, 4, 10, rng(3)).state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 50}, "tokens=50"),
        ({"seq_len": 11}, "seq_len=11"),
        ({"epoch": -1}, "epoch must be an integer of at least 0, got -1"),
        ({"epoch": 0.5}, "epoch"),
        ({"position": "3"}, "position"),
        ({"position": True}, "position"),
        ({"position": 11}, "position is 11, but its epoch has"),
        ({"rng_at_epoch_start": None}, "generator is not one of the kind PCG64"),
        ({"rng_at_epoch_start": {"bit_generator": "PCG64"}}, "PCG64"),
        ({"rng_at_epoch_start": np.random.MT19937(0).state}, "PCG64"),
        ({"extra": 1}, "dictionary"),
    ],
)
def test_a_wrong_state_is_refused_and_changes_nothing(change: dict[str, object], message: str) -> None:
    windows, twin = (ShuffledWindows(TOKENS, 4, 10, rng(0)) for _ in range(2))
    windows.next_batch(), twin.next_batch()
    with pytest.raises(ValueError, match=message):
        windows.load_state_dict({**GOOD, **change})
    assert windows.state_dict() == twin.state_dict()
    for _ in range(8):
        assert (windows.next_batch() == twin.next_batch()).all()


@SAMPLERS
@pytest.mark.parametrize(
    "state", [None, {}, [1], {"rng": {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}}}]
)
def test_what_is_no_state_is_refused(sampler, state: object) -> None:
    with pytest.raises(ValueError, match="state"):
        sampler(TOKENS, 4, 10, rng()).load_state_dict(state)


@SAMPLERS
def test_restoring_keeps_the_generator_that_was_passed_in(sampler) -> None:
    original, generator = sampler(TOKENS, 4, 10, rng(1)), rng(2)
    restored = sampler(TOKENS, 4, 10, generator)
    restored.load_state_dict(original.state_dict())
    restored.next_batch(), original.next_batch()
    assert generator.bit_generator.state == original._rng.bit_generator.state


@SAMPLERS
def test_a_copy_draws_the_same_batches_and_shares_the_tokens(sampler) -> None:
    original = sampler(TOKENS, 4, 10, rng())
    original.next_batch()
    twins = (copy.deepcopy(original), pickle.loads(pickle.dumps(original)))
    assert np.shares_memory(twins[0]._tokens, TOKENS)
    # One after the other: what one draws must not move the others.
    drawn = [[windows.next_batch().tolist() for _ in range(5)] for windows in (*twins, original)]
    assert drawn[0] == drawn[1] == drawn[2]


def test_random_windows_reach_both_ends_of_the_split() -> None:
    windows = RandomWindows(np.arange(12), 1000, 10, rng())
    assert set(windows.next_batch()[:, 0].tolist()) == {0, 1}


def test_all_evaluation_windows_are_consecutive() -> None:
    windows = evaluation_windows(TOKENS, 10, 0)
    assert windows[:, 0].tolist() == list(range(0, 100, 10))
    assert windows.shape == (10, 11)
    assert np.shares_memory(windows, TOKENS)
    assert (evaluation_windows(TOKENS, 10, 99) == windows).all()


@given(length=st.integers(12, 400), seq_len=st.integers(1, 10), max_windows=st.integers(1, 50))
def test_fewer_evaluation_windows_are_evenly_spaced(length: int, seq_len: int, max_windows: int) -> None:
    windows = evaluation_windows(np.arange(length), seq_len, max_windows)
    possible = (length - 1) // seq_len
    assert windows.shape == (min(possible, max_windows), seq_len + 1)
    starts = windows[:, 0]
    assert (starts % seq_len == 0).all()
    gaps = np.diff([*starts.tolist(), possible * seq_len])
    assert gaps.min() >= seq_len
    assert gaps.max() - gaps.min() <= seq_len


@pytest.mark.parametrize(
    "draw", [ShuffledWindows, RandomWindows, lambda tokens, _, t, __: evaluation_windows(tokens, t, 0)]
)
def test_a_split_that_is_too_short_is_refused_with_both_lengths(draw) -> None:
    draw(np.arange(12), 1, 10, rng())
    with pytest.raises(ValueError, match="has 11 tokens, but seq_len=10 needs at least 12"):
        draw(np.arange(11), 1, 10, rng())
    with pytest.raises(ValueError, match="one-dimensional"):
        draw(np.zeros((12, 2), dtype=int), 1, 10, rng())
    with pytest.raises(ValueError, match="seq_len must be at least 1, got 0"):
        draw(TOKENS, 1, 0, rng())


@SAMPLERS
def test_an_empty_batch_is_refused(sampler) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        sampler(TOKENS, 0, 10, rng())


def test_a_negative_number_of_evaluation_windows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_windows must be at least 0.*got -1"):
        evaluation_windows(TOKENS, 10, -1)
