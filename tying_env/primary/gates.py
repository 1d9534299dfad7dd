"""Whose weights would a layer rather use? Gates between layers, trained with the weights for a while.

Every layer computes with a mixture of the weights of all layers of its kind up to itself, W_i = sum over j <= i of
g_ij V_j, where g_i is a softmax of numbers that are trained like the weights. The softmax's temperature falls, so that
the mixtures harden. That is the relaxation of DARTS (Liu et al., ICLR 2019, arXiv 1806.09055), of one level: weights
and gates learn from the same batches.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tying_env.data.batches import Batch
from tying_env.primary.tasks import Task, to_device
from tying_env.primary.trainer import Trainer
from tying_env.seeding import all_randomness_from, torch_stream


class _LossOf(nn.Module):
    """The loss of a network as a module, so that torch can call it with other weights."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(self, batch: Any) -> Tensor:
        """Return the mean loss of a batch in nats, a scalar."""
        return self._task.loss(self.model, batch)


def train_gates(
    trainer: Trainer,
    batches: Sequence[Batch],
    temperatures: Sequence[float],
    learning_rate: float,
    max_grad_norm: float,
) -> npt.NDArray[np.float64]:
    """Train a network whose layers mix each other's weights, a step a batch, and return the mixing weights.

    What the network was is lost: its layers end independent, with the weights that were mixed.

    Args:
        trainer: of the network, with its optimizer and learning rate's schedule; all layers train.
        batches: one for each step.
        temperatures: of the softmax, one for each step.
        learning_rate: of the gates (Adam).
        max_grad_norm: the norm of the weights' gradient is clipped at.

    Returns:
        g, shape (L, L): row i sums to 1; 0 where j > i, and between layers of different kinds. All layers independent
        is the identity, which the gates begin halfway to.

    Raises:
        FloatingPointError: a loss, or a gate, is not finite.
    """
    tied, device = trainer.tied, trainer.device
    trainer.tie(np.arange(tied.n_units))
    own = [tied.weights(i) for i in range(tied.n_units)]
    names: dict[int, list[str]] = {}
    for name, parameter in trainer.network.model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(f"model.{name}")
    kinds = torch.tensor(tied.kinds)
    allowed = torch.tril(kinds[:, None] == kinds[None, :]).to(device)  # (L, L)
    # Each layer begins with half its own weights, and half of the others' together.
    others = (allowed.sum(1, keepdim=True) - 1).clamp(min=1)
    logits = torch.where(torch.eye(len(own), dtype=torch.bool, device=device), others.log(), 0.0)
    gates = logits.expand(len(own), len(own)).clone().requires_grad_()
    optimizer = torch.optim.Adam([gates], lr=learning_rate)
    loss_of = _LossOf(trainer.network.model, trainer.task).train()
    with all_randomness_from(torch_stream(trainer.seed, "gates", device)), torch.enable_grad():
        for batch, temperature in zip(batches, temperatures, strict=True):
            mixture = _softmax(gates, allowed, temperature)
            mixed = {
                name: _mixed([(mixture[i, j], own[j][part]) for j in range(i + 1) if allowed[i, j]])
                for i, weights in enumerate(own)
                for part, parameter in weights.items()
                for name in names[id(parameter)]
            }
            loss: Tensor = torch.func.functional_call(loss_of, mixed, (to_device(batch, device),))
            if not (torch.isfinite(loss) and torch.isfinite(gates).all()):
                raise FloatingPointError(f"a network with mixed layers has diverged: its loss is {loss.item()}")
            loss.backward()
            nn.utils.clip_grad_norm_(trainer.trainable_parameters(), max_grad_norm)
            trainer.optimizer.step()
            trainer.rates.step()
            optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            optimizer.zero_grad(set_to_none=True)
    found: npt.NDArray[np.float64] = _softmax(gates.detach(), allowed, temperatures[-1]).double().cpu().numpy()
    return found


def _mixed(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sum of weights, each times its number."""
    return torch.stack([share * weight for share, weight in parts]).sum(0)


def _softmax(gates: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """Return the mixing weights, shape (L, L)."""
    return (gates / temperature).masked_fill(~allowed, -torch.inf).softmax(-1)
