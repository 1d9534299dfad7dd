"""Networks of the user's own that cannot be trained here are refused by name, with the way out."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.models import Mixed, own
from tying_env.tied_blocks import TiedBlocks


def changed(**parts: Any) -> nn.Module:
    model = Mixed((4, 4, 4))
    for name, part in parts.items():
        setattr(model, name, part)
    return model


def frozen_first() -> nn.Module:
    model = Mixed((4, 4, 4))
    model.layers[0].requires_grad_(False)
    return model


def lazy_blocks() -> nn.Module:
    return changed(layers=nn.ModuleList(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3)) for _ in range(3)))


def compiled(make: Callable[[Any], Any], which: int | None) -> nn.Module:
    """Return a network of which one block, or all of it, is TorchScript."""
    model = Mixed((4, 4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that TorchScript is not for long
        if which is None:
            return make(model)  # type: ignore[no-any-return]
        model.layers[which] = make(model.layers[which])
    return model


def trace(module: nn.Module) -> Any:
    width = next(p.shape[1] for p in module.parameters() if p.ndim == 2)
    return torch.jit.trace(module, torch.zeros(2, width))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, trace])
def test_torchscript_is_refused_by_name(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"'layers\.1' is a TorchScript module .* give the module that it was made of"):
        own(lambda: compiled(make, 1))
    with pytest.raises(ValueError, match="is a TorchScript module"):
        own(lambda: compiled(trace, None))
    with pytest.raises(ValueError, match="block 1 is, or has, a TorchScript module, whose weights cannot be tied"):
        TiedBlocks(list(compiled(make, 1).layers))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: changed(lock=threading.Lock()),
            TypeError,
            "cannot be copied .*lock.*: give a function that makes one",
        ),
        (lambda: changed(kept=torch.ones(2, requires_grad=True) * 2), TypeError, "a copy of the Mixed, and it cannot"),
        (
            lambda: changed(single=nn.LazyLinear(3)),
            ValueError,
            "'single' is a LazyLinear, whose parameters have no shape",
        ),
        (lazy_blocks, ValueError, r"'layers\.0\.0' is a LazyLinear, .*run one through the network first"),
        (frozen_first, ValueError, r"the block 'layers\.0' is frozen, .*call requires_grad_\(True\) on it"),
        (
            lambda: changed(table=nn.Embedding(5, 3, sparse=True)),
            ValueError,
            "'table' is an Embedding with sparse=True, .*make it with sparse=False",
        ),
        (
            lambda: changed(phases=nn.ParameterList([torch.ones(3, dtype=torch.complex64)])),
            ValueError,
            r"'phases\.0' is complex \(torch.complex64\), .*Hold it as torch.view_as_real",
        ),
        (lambda: changed(turns=nn.Buffer(torch.ones(3, dtype=torch.complex128))), ValueError, "'turns' is complex"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused(
    make: Callable[[], nn.Module], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        own(make())


def test_what_cannot_be_copied_is_made_by_a_function() -> None:
    env = own(lambda: changed(lock=threading.Lock()))
    env.reset(seed=0)
    assert np.isfinite(env.step(np.array([0, 0, 1]))[1])


def test_blocks_of_which_no_two_are_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="no two blocks are alike among the 2 at 'layers', so nothing could be tied"):
        own(Mixed((4, 8)), unequal_blocks="within-kind")
