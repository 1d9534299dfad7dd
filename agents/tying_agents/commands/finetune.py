#!/usr/bin/env python
"""Train the networks of runs on a task of GLUE, with their tying kept fixed (paper, Appendix C, Table 6).

python scripts/finetune.py runs/dqn runs/conventional --task sst2 --data path/to/glue
python scripts/finetune.py runs/dqn --task cola --data path/to/glue --methods full lora head --adapters dqn random

Each row of the table is a network and a method over seeds. With --adapters a controller ties LoRA's low-rank updates
while they train: each layer's is independent, or that of an earlier layer; a row with all of them independent
(conventional) is their control.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tying_agents.commands import guard
import numpy as np
import torch
import tyro
from tying_agents.commands.presets import description
from tying_agents.commands.results_file import ResultsFile
from rich.console import Console
from rich.table import Table

from tying_agents.adapters import check_steps, tune_adapters
from tying_agents.controllers_by_name import ControllerName, make_controller
from tying_agents.running.progress import TrainingBar
from tying_env.data import Batch, load_tokenizer
from tying_env.data.glue import TASKS, TaskName, encode, load_glue, scores
from tying_env.downstream import Method, OnStep, TuningConfig, make_classifier, predict, tune
from tying_env.export.writing import Which
from tying_env.primary.models import find_device
from tying_env.runs import load_network
from tying_env.runs.run_directory import BEST, FINAL
from tying_env.seeding import torch_stream


@dataclass(frozen=True)
class Options:
    """Train the networks of runs on a task of GLUE.

    Raises:
        ValueError: a setting is outside its range.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories of a GPT-2 or a BERT."""
    task: TaskName
    """sst2, cola, qnli, mrpc or rte."""
    data: Path | None = None
    """Folder of GLUE's .tsv files (SST-2/train.tsv, ...); without it they come from the Hugging Face hub."""
    network: Which = "best"
    """The runs' networks with the best validation perplexity, or those at the end."""
    methods: tuple[Method, ...] = ("full",)
    """full: everything trains; lora: low-rank updates and the head; head: the head alone."""
    adapters: tuple[ControllerName, ...] = ()
    """Controllers that tie LoRA's updates while they train, a row for each, beside that of `conventional`."""
    k: int = 15
    """Training steps between two decisions of such a controller."""
    rank: int = 8
    """Rank of LoRA's updates."""
    seeds: int = 3
    """Seeds per row: 0, 1, 2, ... of head, updates, order of the examples and dropout."""
    train_examples: int = 0
    """Use only so many training examples, the first ones; 0 for all."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    out: Path | None = None
    """Write the results to this JSON file as they come; the same command goes on from what is there."""
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("give at least one run directory")
        for name, least in (("seeds", 1), ("k", 1), ("rank", 1), ("train_examples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.methods and not self.adapters:
            raise ValueError("give at least one of --methods or --adapters")

    def file(self, run: Path) -> Path:
        """Return the network file of a run."""
        return run / (BEST if self.network == "best" else FINAL)

    def arms(self) -> list[tuple[str, Method, ControllerName | None]]:
        """Return the rows of each run: name, method, and who ties the updates."""
        arms: list[tuple[str, Method, ControllerName | None]] = [(method, method, None) for method in self.methods]
        names: tuple[ControllerName, ...] = ("conventional", *self.adapters) if self.adapters else ()
        return arms + [(f"lora, tied by {name}", "lora", name) for name in dict.fromkeys(names)]


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print the table, and return the exit code."""

    def work(console: Console) -> int:
        options = tyro.cli(Options, args=argv, description=description(__doc__), config=(tyro.conf.OmitArgPrefixes,))
        console.print(to_table(options, carry_out(options, console)))
        return 0

    return guard.guarded(work, "With --out, the same command goes on from there.")


def carry_out(options: Options, console: Console) -> list[dict[str, Any]]:
    """Return one result for each run, method and seed; those that are in `options.out` already are not made again."""
    # 1. What is wrong with anything shows before hours of training.
    for path in options.runs:
        load_network(options.file(path))
    train, dev = (load_glue(options.task, split, options.data) for split in ("train", "dev"))
    train = train[: options.train_examples or None]
    if options.adapters:
        check_steps(options.tuning, len(train), options.k)
    device = find_device(options.device)
    settings = {name: getattr(options, name) for name in ("task", "data", "network", "k", "rank", "train_examples")}
    kept = ResultsFile(options.out, settings | dataclasses.asdict(options.tuning), ("run", "method", "seed"))
    # 2. Train and measure.
    results = []
    for path in options.runs:
        config = load_network(options.file(path)).config
        tokenizer = load_tokenizer(config.tokenizer)
        examples, held_out = (encode(rows, tokenizer, config.seq_len) for rows in (train, dev))
        for label, method, controller in options.arms():
            for seed in range(options.seeds):
                key = {"run": str(path), "method": label, "seed": seed}
                result = kept.find(**key)
                if result is None:
                    with TrainingBar(console, f"{path}, {label}, seed {seed}") as bar:
                        result = key | one_result(
                            options, path, method, controller, seed, examples, held_out, device, bar
                        )
                    kept.add(result)
                shown = ", ".join(f"{name} {result[name]:.3f}" for name in measures(options) if name in result)
                line = f"{path}, {label}, seed {seed}: {result['diverged'] or shown}"
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                results.append(result)
    return results


def one_result(
    options: Options,
    run: Path,
    method: Method,
    controller: ControllerName | None,
    seed: int,
    examples: Batch,
    held_out: Batch,
    device: torch.device,
    on_step: OnStep,
) -> dict[str, Any]:
    """Train once and measure; a training that diverged has no scores, but says so under "diverged"."""
    result: dict[str, Any] = {"diverged": None}
    try:
        if controller is None:
            generator = torch_stream(seed, "downstream weights")
            classifier: Any = make_classifier(options.file(run), method, generator, rank=options.rank, device=device)
            tuned = tune(classifier, examples, options.tuning, seed, on_step)
            result |= {"trainable_parameters": float(tuned.trainable_parameters), "seconds": tuned.seconds}
        else:
            adapted = tune_adapters(
                options.file(run),
                examples,
                options.tuning,
                seed,
                functools.partial(make_controller, controller, seed=seed),
                k=options.k,
                rank=options.rank,
                device=str(device),
                on_step=on_step,
            )
            classifier = adapted.classifier
            result |= {"trainable_parameters": adapted.trainable_parameters, "seconds": adapted.seconds}
            result |= {"independent_adapters": adapted.independent_layers}
        return result | scores(options.task, held_out["labels"], predict(classifier, held_out))
    except FloatingPointError as error:
        return {"diverged": str(error)}


def measures(options: Options) -> list[str]:
    """Return the names of the scores of a task."""
    return list(dict.fromkeys((TASKS[options.task].score, "accuracy")))


def to_table(options: Options, results: list[dict[str, Any]]) -> Table:
    """Return a row for each run and method: means over the seeds that did not diverge, with standard deviations."""
    title = f"{TASKS[options.task].folder}, development split: mean (standard deviation) over {options.seeds} seeds"
    table = Table(title=title, title_justify="left")
    for column in ("run", "method", "trainable parameters", "independent adapters", "seconds", *measures(options)):
        table.add_column(column)
    for run, method in dict.fromkeys((result["run"], result["method"]) for result in results):
        rows = [result for result in results if (result["run"], result["method"]) == (run, method)]
        sound = [row for row in rows if not row["diverged"]]
        lost = f"diverged: {len(rows) - len(sound)} of {len(rows)}" if len(sound) < len(rows) else ""
        cells = [_mean(sound, name, digits) for name, digits in _COLUMNS]
        for name in measures(options):
            values = [row[name] for row in sound]
            spread = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
            cells.append(", ".join(filter(None, [f"{np.mean(values):.3f}{spread}" if values else "", lost])))
        table.add_row(run, method, *cells)
    return table


_COLUMNS = (("trainable_parameters", 0), ("independent_adapters", 2), ("seconds", 1))


def _mean(rows: list[dict[str, Any]], name: str, digits: int) -> str:
    values = [row[name] for row in rows if name in row]
    return f"{np.mean(values):,.{digits}f}" if values else "-"


if __name__ == "__main__":
    sys.exit(main())
