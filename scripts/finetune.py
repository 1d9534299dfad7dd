#!/usr/bin/env python
"""Train the networks of runs on a task of GLUE, with their tying kept fixed (paper, Appendix C, Table 6).

python scripts/finetune.py runs/dqn runs/conventional --task sst2 --data path/to/glue
python scripts/finetune.py runs/dqn --task cola --data path/to/glue --methods full lora head --adapters dqn random

Each row of the table is a network and a method over seeds. With --adapters a controller ties LoRA's low-rank updates
while they train: each layer's is independent, or that of an earlier layer.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _interrupts
import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents.adapters import tune_adapters
from agents.controllers import ControllerName, make_controller
from tying_env.data import load_tokenizer
from tying_env.data.glue import TASKS, TaskName, encode, load_glue, scores
from tying_env.downstream import Method, TuningConfig, make_classifier, predict, tune
from tying_env.export.writing import Which
from tying_env.files import to_json, written_whole
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
    """Controllers that tie LoRA's updates while they train, a row for each."""
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
    """Write all results to this JSON file as well."""
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("give at least one run directory")
        for name, least in (("seeds", 1), ("k", 1), ("rank", 1), ("train_examples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.methods and not self.adapters:
            raise ValueError("give at least one of --methods or --adapters")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print the table, and return the exit code."""
    console = Console()
    try:
        _interrupts.at_work()
        options = tyro.cli(Options, args=argv, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
        results = list(carry_out(options, console))
        console.print(to_table(options, results))
        if options.out is not None:
            with written_whole(options.out) as path:
                path.write_text(to_json({"options": dataclasses.asdict(options), "results": results}, indent=2) + "\n")
        return 0
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1


def carry_out(options: Options, console: Console) -> list[dict[str, Any]]:
    """Return one result for each run, method and seed."""
    for path in options.runs:  # what is wrong with any of them shows before hours of training
        load_network(path / (BEST if options.network == "best" else FINAL))
    train, dev = (load_glue(options.task, split, options.data) for split in ("train", "dev"))
    train = train[: options.train_examples or None]
    device = find_device(options.device)
    results = []
    for path in options.runs:
        file = path / (BEST if options.network == "best" else FINAL)
        config = load_network(file).config
        tokenizer = load_tokenizer(config.tokenizer)
        examples, held_out = (encode(rows, tokenizer, config.seq_len) for rows in (train, dev))
        arms: list[tuple[str, Method, ControllerName | None]] = [(method, method, None) for method in options.methods]
        arms += [(f"lora, tied by {name}", "lora", name) for name in options.adapters]
        for label, method, controller in arms:
            for seed in range(options.seeds):
                if controller is None:
                    generator = torch_stream(seed, "downstream weights")
                    classifier: Any = make_classifier(file, method, generator, rank=options.rank, device=device)
                    tuned = tune(classifier, examples, options.tuning, seed)
                    parameters, seconds = float(tuned.trainable_parameters), tuned.seconds
                else:
                    adapted = tune_adapters(
                        file,
                        examples,
                        options.tuning,
                        seed,
                        functools.partial(make_controller, controller, seed=seed),
                        k=options.k,
                        rank=options.rank,
                        device=str(device),
                    )
                    classifier, parameters, seconds = adapted.classifier, adapted.trainable_parameters, adapted.seconds
                measured = scores(options.task, held_out["labels"], predict(classifier, held_out))
                results.append(
                    {
                        "run": str(path),
                        "method": label,
                        "seed": seed,
                        "trainable_parameters": parameters,
                        "seconds": seconds,
                        **measured,
                    }
                )
                shown = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
                console.print(f"{path}, {label}, seed {seed}: {shown}", highlight=False, markup=False)
    return results


def to_table(options: Options, results: list[dict[str, Any]]) -> Table:
    """Return a row for each run and method: means over seeds, with standard deviations."""
    score = TASKS[options.task].score
    measures = list(dict.fromkeys((score, "accuracy")))
    title = f"{TASKS[options.task].folder}, development split: mean (standard deviation) over {options.seeds} seeds"
    table = Table(title=title, title_justify="left")
    for column in ("run", "method", "trainable parameters", "seconds", *measures):
        table.add_column(column)
    for run, method in dict.fromkeys((result["run"], result["method"]) for result in results):
        rows = [result for result in results if (result["run"], result["method"]) == (run, method)]
        cells = [f"{np.mean([row['trainable_parameters'] for row in rows]):,.0f}"]
        cells.append(f"{np.mean([row['seconds'] for row in rows]):,.1f}")
        for name in measures:
            values = [row[name] for row in rows]
            spread = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}")
        table.add_row(run, method, *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
