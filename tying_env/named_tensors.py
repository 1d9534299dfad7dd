"""Whether tensors that were read are those that are expected: their names, shapes and types."""

import torch
from torch import Tensor


def check_tensors(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], where: str = "the state") -> None:
    """Check that exactly the tensors of `shapes` are there.

    Raises:
        ValueError: one is missing, unexpected or of another shape; the message names it.
    """
    for name in [*shapes, *tensors]:
        if name not in tensors:
            raise ValueError(f"{where} lacks the tensor {name!r}")
        if name not in shapes:
            raise ValueError(f"{where} has an unexpected tensor {name!r}")
        if tuple(tensors[name].shape) != shapes[name]:
            raise ValueError(f"{where} has {name!r} of shape {tuple(tensors[name].shape)}, expected {shapes[name]}")


def check_dtypes(tensors: dict[str, Tensor], dtypes: dict[str, torch.dtype], where: str = "the state") -> None:
    """Check the types of tensors that `check_tensors` has let pass.

    Raises:
        ValueError: one is of another type; the message names it.
    """
    for name, dtype in dtypes.items():
        if tensors[name].dtype != dtype:
            raise ValueError(f"{where} has {name!r} in {tensors[name].dtype}, expected {dtype}")
