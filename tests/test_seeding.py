import json

import numpy as np
import pytest
import torch

from tying_env import seeding


def test_a_stream_depends_on_seed_and_name_alone() -> None:
    first = seeding.numpy_stream(3, "batches").integers(1000, size=8)
    seeding.numpy_stream(3, "other").integers(1000, size=100)
    assert (seeding.numpy_stream(3, "batches").integers(1000, size=8) == first).all()
    assert (seeding.numpy_stream(3, "other").integers(1000, size=8) != first).any()
    assert (seeding.numpy_stream(4, "batches").integers(1000, size=8) != first).any()


def test_torch_streams_agree_and_differ_likewise() -> None:
    draw = [torch.rand(8, generator=seeding.torch_stream(s, n)) for s, n in [(1, "a"), (1, "a"), (1, "b"), (2, "a")]]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    assert not torch.equal(draw[0], draw[3])


def test_the_global_generator_is_lent_and_given_back() -> None:
    outside = torch.get_rng_state()
    generator = seeding.torch_stream(0, "dropout")
    with seeding.torch_randomness_from(generator):
        first = torch.rand(4)
    with seeding.torch_randomness_from(generator):
        second = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), outside)
    expected = torch.rand(8, generator=seeding.torch_stream(0, "dropout"))
    assert torch.equal(torch.cat([first, second]), expected)  # the stream continues where it was


def test_the_global_generator_is_given_back_after_an_error() -> None:
    outside = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeding.torch_randomness_from(seeding.torch_stream(0, "x")):
        torch.rand(1)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), outside)


def test_a_stream_continues_from_a_state_that_went_through_json() -> None:
    rng = seeding.numpy_stream(0, "a")
    rng.integers(10, size=5)
    state = json.loads(json.dumps(seeding.capture_numpy(rng)))
    expected = rng.integers(1000, size=5)
    other = seeding.numpy_stream(9, "b")
    seeding.restore_numpy(other, state)
    assert (other.integers(1000, size=5) == expected).all()


def test_a_wrong_state_is_refused() -> None:
    with pytest.raises(ValueError, match="PCG64"):
        seeding.restore_numpy(np.random.default_rng(0), {"bit_generator": "MT19937", "state": {}})


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number"):
        seeding.check_seed(seed)
