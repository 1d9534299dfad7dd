"""Trains the networks of runs on a task of GLUE, row by row, and sums up."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tying_agents.controllers.base import Context, Controller
from tying_agents.downstream.adapters import check_steps, tune_adapters
from tying_agents.downstream.results_file import ResultsFile
from tying_agents.downstream.settings import FinetuneOptions
from tying_agents.registry import find_agent
from tying_agents.running.progress import TrainingBar
from tying_env.data import Batch
from tying_env.data.glue import TASKS, check_labels, encode, load_glue, scores
from tying_env.downstream import OnStep, TuningMethod, make_classifier, predict, tune
from tying_env.primary.models import find_device
from tying_env.runs import load_network, tokenizer_of
from tying_env.seeding import torch_stream


def make_results(options: FinetuneOptions, console: Console) -> list[dict[str, Any]]:
    """Return one result for each run, method and seed; those that are in `options.out` already are not made again."""
    # 1. What is wrong with anything shows before hours of training.
    for path in options.runs:
        load_network(options.file(path))
    train, dev = (load_glue(options.task, split, options.data) for split in ("train", "dev"))
    train = train[: options.train_examples or None]
    check_labels(options.task, train, f"the first {len(train)} training examples of {options.task}")
    options.tuning.steps(len(train))
    if options.adapters:
        check_steps(options.tuning, len(train), options.k)
    device = find_device(options.device)
    settings = {name: getattr(options, name) for name in ("task", "data", "network", "k", "rank", "train_examples")}
    settings |= dataclasses.asdict(options.tuning)
    earlier = {"warmup_steps": 0, "schedule": "linear", "min_lr_ratio": 0.0, "wsd_decay_share": 0.2}
    kept = ResultsFile(options.out, settings, ("run", "method", "seed"), before=earlier)
    # 2. Train and measure.
    results = []
    for path in options.runs:
        saved = load_network(options.file(path))
        tokenizer, seq_len = tokenizer_of(path, saved), saved.config.seq_len
        if tokenizer is None:
            raise ValueError(f"downstream tasks are of text, and the network of {path} reads none")
        (examples, _), (held_out, cut) = (encode(rows, tokenizer, seq_len) for rows in (train, dev))
        if cut:
            text = f"{path}: {cut / len(dev):.0%} of the sentences do not fit its {seq_len} tokens, and lose their end"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
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
    options: FinetuneOptions,
    run: Path,
    method: TuningMethod,
    controller: str | None,
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
                functools.partial(_controller, controller, seed),
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


def _controller(agent: str, seed: int, n_units: int) -> Controller:
    found = find_agent(agent)
    return found.make(found.settings(), Context(n_units, seed))


def measures(options: FinetuneOptions) -> list[str]:
    """Return the names of the scores of a task."""
    return list(dict.fromkeys((TASKS[options.task].score, "accuracy")))


def scores_table(options: FinetuneOptions, results: list[dict[str, Any]]) -> Table:
    """Return a row for each run and method: means over the seeds that did not diverge, with standard deviations."""
    title = f"{TASKS[options.task].folder}, development split: mean (standard deviation) over {options.seeds} seeds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ("run", "method", "trainable parameters", "independent adapters", "seconds", *measures(options)):
        # Where the terminal is too narrow cells fold; nothing is cut off.
        table.add_column(column, overflow="fold")
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
