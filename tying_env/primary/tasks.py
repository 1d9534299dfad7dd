"""What the primary network learns: a batch in, a mean loss in nats out."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tying_env.primary.head import linear_cross_entropy


class Task(Protocol):
    """Turns a batch into a loss."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean loss per predicted token in nats, a scalar."""
        ...


class CausalLM:
    """Predict every token from those before it, for transformers models with `.transformer` and `.lm_head`."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy of windows (B, T + 1): tokens 0..T-1 are read, tokens 1..T predicted."""
        inputs, targets = batch[:, :-1], batch[:, 1:]  # (B, T) each
        hidden = model.get_submodule("transformer")(input_ids=inputs, use_cache=False).last_hidden_state  # (B, T, D)
        weight = model.get_parameter("lm_head.weight")  # (V, D)
        return linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten())


def to_device(batch: npt.NDArray[np.integer[Any]], device: torch.device) -> Tensor:
    """Copy a batch to the device as int64, without waiting for it where the device can work meanwhile."""
    tensor = torch.from_numpy(batch.astype(np.int64))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
