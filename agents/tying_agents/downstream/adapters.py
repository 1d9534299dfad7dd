"""Dynamic tying of LoRA's low-rank updates: the paper's suggestion for future work.

The network's own weights stand still. Each layer's update is independent, or it is that of an earlier layer, as a
controller decides every k training steps: the environment around a network of adapters.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import nn

from tying_agents.callbacks import Callback, Record
from tying_agents.controllers.base import Controller
from tying_agents.loop import Loop, drive
from tying_env.config import EnvConfig
from tying_env.data.batches import Batch, count_examples
from tying_env.downstream import OnStep, TuningConfig, make_classifier
from tying_env.downstream.classifier import classification_loss
from tying_env.env import LayerTyingEnv
from tying_env.seeding import torch_stream

# Makes a controller for so many layers.
MakeController = Callable[[int], Controller]


class TiedAdapters(NamedTuple):
    """What training with tied adapters came to."""

    classifier: nn.Module
    trainable_parameters: float  # mean over the decisions
    independent_layers: float  # mean over the decisions
    tying: list[int]  # at the end, (L,)
    seconds: float


def tune_adapters(
    network: Path,
    examples: Batch,
    config: TuningConfig,
    seed: int,
    make_controller: MakeController,
    *,
    k: int = 15,
    rank: int = 8,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> TiedAdapters:
    """Train low-rank updates on a task while a controller ties them.

    Args:
        network: a network file of a GPT-2 or a BERT.
        examples: as for `tune`.
        config: how to train.
        seed: of the updates, the order of the examples and dropout.
        make_controller: makes the controller.
        k: training steps between two decisions.
        rank: of the updates.
        device: where to train.
        on_step: is told after every decision.

    Raises:
        FloatingPointError: training diverged.
        ValueError: there are so few training steps that nothing would be decided on while they train, or that all of
            them are warm-up.
        ValueError, FileNotFoundError, ImportError: as `make_classifier`.
    """
    steps = check_steps(config, count_examples(examples), k)

    def model() -> nn.Module:
        return make_classifier(network, "lora", torch_stream(seed, "downstream weights"), rank=rank)

    env = LayerTyingEnv(
        model=model,
        batches=examples,
        loss=classification_loss,
        k=k,
        total_steps=steps,
        batch_size=config.batch_size,
        learning_rate=config.rate("lora"),
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        # What never falls takes the default alone.
        min_lr_ratio=EnvConfig.min_lr_ratio if config.schedule == "constant" else config.min_lr_ratio,
        wsd_decay_share=config.wsd_decay_share,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        device=device,
    )
    kept = _Kept(steps, on_step)
    loop = drive(make_controller(env.config.n_units), env, [kept], seed=seed)
    if loop.diverged:
        raise FloatingPointError(f"training diverged at step {loop.train_step}: lower the learning rate")
    records = kept.records
    return TiedAdapters(
        env.trainer.network.model,
        sum(record["trainable_parameters"] for record in records) / len(records),
        sum(record["independent_layers"] for record in records) / len(records),
        loop.observation.tolist(),
        loop.seconds,
    )


class _Kept(Callback):
    """Keeps the records, and tells of the steps."""

    def __init__(self, steps: int, on_step: OnStep | None) -> None:
        self.records: list[Record] = []
        self._steps, self._on_step = steps, on_step

    def decision_made(self, loop: Loop, record: Record) -> None:
        self.records.append(record)
        if self._on_step is not None:
            self._on_step(record["train_step"], self._steps)


def check_steps(config: TuningConfig, examples: int, k: int) -> int:
    """Return the training steps for so many examples, enough for decisions to matter.

    Raises:
        ValueError: there are not more than `k`, or than those of the warm-up.
    """
    steps = config.steps(examples)
    if steps <= k:
        raise ValueError(
            f"{examples} examples make {steps} training steps, and the first decision comes after k={k}: nothing would "
            "be decided while the updates train; choose a lower k, or more epochs or examples"
        )
    return steps
