"""Whether layers are alike: cosines between weights, updates, and the gradients of layers that share weights.

A shared weight gets the sum of its layers' gradients. Layers whose gradients point the same way lose nothing by
sharing; those whose gradients point apart hold each other back, and are the first to be given weights of their own
(Yang et al., 2021, arXiv 2110.03848; gradient conflict in multi-task learning, Yu et al., 2020, arXiv 2001.06782).
"""

import contextlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tying_env.data.batches import Batch
from tying_env.primary.optimizers import StateLayouts
from tying_env.primary.tasks import Task, to_device
from tying_env.seeding import all_randomness_from, torch_stream
from tying_env.tied_blocks import TiedBlocks

# Names, in the state of torch's optimizers, of the running mean of gradients.
_MEANS = frozenset({"exp_avg", "momentum_buffer"})


def gradient_agreement(
    model: nn.Module, tied: TiedBlocks, task: Task, batches: Iterable[Batch], device: torch.device
) -> npt.NDArray[np.float64]:
    """Return the cosine between the gradients of each two layers, shape (L, L), each with respect to its own use.

    Layers of a group compute with the same weights, of which every layer has a gradient of its own; layers of different
    groups are compared as well, where their blocks are of one kind. The gradient is that of the mean loss over all
    batches, without dropout. Nothing is trained, no random stream moves on, and no gradient is left behind; it takes
    the memory of conventional training's gradients for as long.

    Args:
        model: the network, on `device`.
        tied: its blocks.
        task: turns a batch into a loss.
        batches: examples to compute the loss on.
        device: where the network is.

    Returns:
        1 on the diagonal, for a layer without a gradient as well; NaN between layers of different kinds, and where one
        has no gradient; symmetric.
    """
    L = tied.n_units
    sums: list[dict[str, torch.Tensor]] = [{} for _ in range(L)]
    model.eval()
    stream = all_randomness_from(torch_stream(0, "measuring", device)) if task.foreign else contextlib.nullcontext()
    with tied.apart() as weights, stream, torch.enable_grad():
        leaves = {id(p): p for own in weights for p in own.values()}
        for batch in batches:
            there = to_device(batch, device)
            if not (count := task.count(model, there)):  # the mean of nothing is no number
                continue
            loss = task.loss(model, there) * count
            found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
            for total, own in zip(sums, weights, strict=True):
                for name, parameter in own.items():
                    if (gradient := found[id(parameter)]) is not None:
                        total[name] = total[name] + gradient if name in total else gradient
    return _cosines(tied, sums)


def weight_agreement(tied: TiedBlocks) -> npt.NDArray[np.float64]:
    """Return the cosine between the matrices of each two layers, as one vector each, shape (L, L).

    Norms and biases, which begin alike in all layers, are left out where a layer has matrices.

    Args:
        tied: the blocks.

    Returns:
        1 on the diagonal, and between layers that share weights; NaN between layers of different kinds; symmetric.
    """
    parts = []
    for i in range(tied.n_units):
        own = {name: weight.detach() for name, weight in tied.weights(i).items()}
        parts.append({name: weight for name, weight in own.items() if weight.ndim > 1} or own)
    return _cosines(tied, parts)


def update_agreement(
    tied: TiedBlocks, optimizer: torch.optim.Optimizer, layouts: StateLayouts
) -> npt.NDArray[np.float64]:
    """Return the cosine between the directions in which each two layers are being trained, shape (L, L).

    The direction is the optimizer's running mean of gradients: AdamW's first moment, the momentum of SGD and Muon.

    Args:
        tied: the blocks.
        optimizer: of the network.
        layouts: what state it keeps.

    Returns:
        1 on the diagonal, and between layers that share weights; NaN between layers of different kinds, and where one
        has not been trained; symmetric.

    Raises:
        ValueError: the optimizer keeps no such mean, trained or not; the message names it.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not _MEANS & layouts.of(group, parameter).keys():
                raise ValueError(
                    f"{type(optimizer).__name__} keeps no running mean of gradients ({' or '.join(sorted(_MEANS))}) as "
                    "it is set here: updates cannot be compared"
                )
    parts: list[dict[str, torch.Tensor]] = []
    for i in range(tied.n_units):
        states = {name: optimizer.state.get(weight, {}) for name, weight in tied.weights(i).items()}
        means = {name: state[key] for name, state in states.items() for key in sorted(_MEANS & state.keys())[:1]}
        parts.append(means)
    return _cosines(tied, parts)


def _cosines(tied: TiedBlocks, parts: list[dict[str, torch.Tensor]]) -> npt.NDArray[np.float64]:
    """Return the cosines between layers of one kind, each given as tensors by name, shape (L, L)."""
    L = tied.n_units
    gram = np.full((L, L), np.nan)
    for kind in np.unique(tied.kinds).tolist():
        layers = np.flatnonzero(tied.kinds == kind)
        gram[np.ix_(layers, layers)] = _inner_products([parts[i] for i in layers.tolist()])
    norms = np.sqrt(np.diag(gram))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines: npt.NDArray[np.float64] = np.clip(gram / np.outer(norms, norms), -1.0, 1.0)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def _inner_products(layers: list[dict[str, torch.Tensor]]) -> npt.NDArray[np.float64]:
    """Return the inner products of layers, each with a part for every name, shape (n, n)."""
    total = np.zeros((len(layers), len(layers)))
    for name in {name for layer in layers for name in layer}:
        parts = next(layer[name] for layer in layers if name in layer)
        rows = torch.stack([layer.get(name, torch.zeros_like(parts)).flatten() for layer in layers])
        rows = rows if rows.dtype == torch.float64 else rows.float()
        total += (rows @ rows.T).double().cpu().numpy()
    return total
