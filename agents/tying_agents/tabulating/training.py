"""Trains one row of the tying table in the real environment, with one tying for good."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tying_agents.running.description import processor_kind
from tying_agents.tabulating.plan import Row, TablePlan
from tying_env.data import Batch
from tying_env.env import LayerTyingEnv
from tying_env.primary.evaluation import mean_loss

_AT_ONCE = 32  # windows that are measured at once: the fastest of 8 to 128


@dataclass(frozen=True)
class TrainedRow:
    """What a training gave.

    Attributes:
        losses: training (mean since the point before), validation and test at each point, nats per byte; infinity from
            where training diverged. # (3, P)
        parameters: trainable.
        memory: bytes of weights, gradients and optimizer state.
        seconds: of the CPU.
        processor: it was trained on, which decides how numbers are rounded; empty where nobody noted it.
    """

    losses: list[list[float]]
    parameters: int
    memory: int
    seconds: float
    processor: str = ""


def train_row(plan: TablePlan, row: Row) -> TrainedRow:
    """Train a network with a tying that never changes, and measure its losses on the way.

    Args:
        plan: the settings that all rows share.
        row: tying, seed and learning rate.

    Raises:
        ValueError, OSError: the data cannot be used.
    """
    started = time.process_time()
    settings: dict[str, Any] = {
        **plan.settings,
        "dataset": plan.dataset,
        "learning_rate": row.learning_rate,
        # Losses are measured below, on more windows at once; the environment itself measures at the end alone.
        "validate_every": plan.settings["total_steps"],
        "validation_windows": 1,
        "device": "cpu",
    }
    env = LayerTyingEnv(**settings)
    tying = np.array(row.tying)
    env.reset(seed=row.seed, options={"tying": tying})
    held_out: list[Batch] = [env.windows(split, plan.windows) for split in ("validation", "test")]
    losses = [[math.inf] * len(plan.points) for _ in range(3)]
    parameters, memory = env.trainer.count_trainable(), 0
    for place in range(len(plan.points)):
        *_, terminated, _, info = env.step(tying)
        if terminated:
            break
        network, task = env.trainer.network.model, env.workload.task
        measured = [mean_loss(network, task, windows, _AT_ONCE, env.device) for windows in held_out]
        for split, loss in enumerate((float(info["train_loss"]), *measured)):
            losses[split][place] = loss
        held = env.trainer.memory()  # between two steps, when gradients have been let go
        memory = held.weights + max(held.gradients, held.weights) + held.optimizer_state
    env.close()
    return TrainedRow(losses, parameters, memory, round(time.process_time() - started, 3), processor_kind())
