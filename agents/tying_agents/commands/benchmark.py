#!/usr/bin/env python
"""Measure what this package costs and what tying saves.

The arms of a measurement take turns in one process, so that whatever else the machine does hits all of them. Numbers
are medians over the turns, with their range; a ratio is the median of the ratios of single turns.

python scripts/benchmark.py
python scripts/benchmark.py memory
python scripts/benchmark.py --only step head --repeats 30 --json benchmark.json
"""

import dataclasses
import itertools
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tying_agents.commands import guard
import torch
import tyro
from tying_agents.benchmarks.head import measure_head
from tying_agents.benchmarks.many import Many, measure_vector
from tying_agents.benchmarks.measurements import (
    Workload,
    measure_change,
    measure_dqn,
    measure_step,
    measure_tying,
)
from tying_agents.benchmarks.memory import Sizes, measure_memory, memory_table
from tying_agents.benchmarks.options import Growth, measure_growth, measure_options
from tying_agents.benchmarks.speed import measure_plain, measure_start, measure_where
from tying_agents.benchmarks.turns import Row
from rich.console import Console
from rich.table import Table

from tying_env.files import to_json, written_whole

Measurement = Literal[
    "step", "head", "tying", "change", "dqn", "plain", "where", "options", "growth", "start", "vector", "memory"
]
MEASUREMENTS: dict[Measurement, tuple[str, Callable[["Options"], list[Row]]]] = {
    "step": ("env.step against a bare training loop", lambda given: measure_step(given.workload)),
    "head": ("The head, chunked against plain", lambda given: measure_head(given.workload)),
    "tying": (
        "Conventional training against 3 leaders, with many words and with few",
        lambda given: measure_tying(given.workload),
    ),
    "change": ("A change of the tying against a training step", lambda given: measure_change(given.workload)),
    "dqn": ("A decision and update of the factorized DQN", lambda given: measure_dqn(given.workload)),
    "plain": (
        "Training steps against a plain loop, transformers' Trainer and the matrix products alone",
        lambda given: measure_plain(given.workload),
    ),
    "where": ("Where the time of a training step goes", lambda given: measure_where(given.workload)),
    "options": ("What the options do, 3 leaders", lambda given: measure_options(given.workload)),
    "growth": ("Cost as the work grows", lambda given: measure_growth(given.workload, given.growth)),
    "start": ("Until something happens", lambda given: measure_start(given.workload)),
    "vector": (
        "Many small networks at once: one batched computation against as many processes",
        lambda given: measure_vector(given.workload, given.many),
    ),
    "memory": (
        "Memory by kind in a training step, against conventional training",
        lambda given: measure_memory(given.workload.config(), given.memory),
    ),
}

BUSY = 0.5  # load average from which on the numbers are doubtful


@dataclass(frozen=True)
class Options:
    """Measure what this package costs and what tying saves.

    Raises:
        ValueError: a setting is outside its range.
    """

    only: tuple[Measurement, ...] = get_args(Measurement)
    """Which measurements to run."""
    json: Path | None = None
    """Write machine, options and all numbers to this file as well."""
    threads: int | None = None
    """Threads of torch; its own choice by default."""
    workload: Workload = field(default_factory=Workload)
    memory: Sizes = field(default_factory=Sizes)
    """What memory is accounted for."""
    many: Many = field(default_factory=Many)
    """Networks that are trained at once."""
    growth: Growth = field(default_factory=Growth)
    """How the work grows."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.json is not None and not self.json.resolve().parent.is_dir():
            raise ValueError(f"json must be a file in a folder that exists, got {str(self.json)!r}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, write, and return the exit code."""

    def work(console: Console) -> int:
        options = tyro.cli(Options, args=_spelled_out(argv), description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        machine, results = describe_machine(), {}
        console.print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
        if machine["load_at_start"] > BUSY:
            console.print("[yellow]warning:[/] this machine is busy; threads then wait for each other, expect noise")
        for i, name in enumerate(options.only):
            title, measure = MEASUREMENTS[name]
            console.print(f"[{i + 1}/{len(options.only)}] measuring {name} ...", markup=False)
            results[name] = measure(options)
            as_table = memory_table if name == "memory" else to_table
            console.print(as_table(title, results[name]))
        if options.json is not None:
            rows = {name: [row._asdict() for row in rows] for name, rows in results.items()}
            content = {"machine": machine, "options": dataclasses.asdict(options), "measurements": rows}
            with written_whole(options.json) as path:
                path.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")
        return 0

    return guard.guarded(work)


def _spelled_out(argv: Sequence[str] | None) -> list[str]:
    """Return the arguments with the measurements named first turned into the option that means them."""
    words = list(sys.argv[1:] if argv is None else argv)
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    return [*(["--only"] if named else []), *words]


def describe_machine() -> dict[str, Any]:
    """Return what the numbers depend on beside the code."""
    names = [line.partition(":")[2].strip() for line in read_cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],  # of the last minute; an idle machine has about 0
    }


def read_cpuinfo() -> list[str]:
    """Return what Linux says about the processor, by line; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def to_table(title: str, rows: Sequence[Row]) -> Table:
    """Return the rows as a table; ratios are to the first row of their section."""
    table = Table("", title=title, title_justify="left")
    for column in ("median", "min .. max", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("required")
    for row in rows:
        if row.against is None:
            table.add_section()
        spread = "" if row.min == row.max else f"{number(row.min)} .. {number(row.max)}"
        ratio = "1" if row.ratio is None else f"{row.ratio:.4g}"
        table.add_row(row.name, f"{number(row.median)} {row.unit}", spread, ratio, row.required)
    return table


def number(value: float) -> str:
    """Return a number with all digits before the point, and four in all if it has fewer."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
