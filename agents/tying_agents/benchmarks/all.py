"""All measurements of the benchmark, in their order."""

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from tying_agents.benchmarks.growth import measure_growth
from tying_agents.benchmarks.head import measure_head
from tying_agents.benchmarks.many import measure_vector
from tying_agents.benchmarks.measurements import (
    measure_change,
    measure_dqn,
    measure_parts,
    measure_step,
    measure_tying,
)
from tying_agents.benchmarks.memory import measure_memory, memory_table
from tying_agents.benchmarks.options import measure_options
from tying_agents.benchmarks.reuse import measure_reuse
from tying_agents.benchmarks.settings import BenchmarkOptions, MeasurementName
from tying_agents.benchmarks.showing import to_table
from tying_agents.benchmarks.speed import measure_plain, measure_start, measure_where
from tying_agents.benchmarks.table import measure_table
from tying_agents.benchmarks.turns import Note, TableRow
from tying_agents.running.description import describe_machine
from tying_env.primary.kernels.products import onednn_is_chosen
from tying_env.primary.models import find_device

MEASUREMENTS: dict[MeasurementName, tuple[str, Callable[[BenchmarkOptions, Note], list[TableRow]]]] = {
    "step": ("env.step against a bare training loop", lambda given, note: measure_step(given.workload)),
    "head": ("The head, chunked against plain", lambda given, note: measure_head(given.workload)),
    "tying": (
        "Conventional training against 3 leaders, with many words and with few",
        lambda given, note: measure_tying(given.workload),
    ),
    "parts": ("A batch cut into parts against the batch in one", lambda given, note: measure_parts(given.workload)),
    "change": ("A change of the tying against a training step", lambda given, note: measure_change(given.workload)),
    "dqn": ("A decision and update of the factorized DQN", lambda given, note: measure_dqn(given.workload)),
    "plain": (
        "Training steps against a plain loop, transformers' Trainer and the matrix products alone",
        lambda given, note: measure_plain(given.workload, note),
    ),
    "where": ("Where the time of a training step goes", lambda given, note: measure_where(given.workload)),
    "options": ("What the options do, 3 leaders", lambda given, note: measure_options(given.workload)),
    "growth": ("Cost as the work grows", lambda given, note: measure_growth(given.workload, given.growth, note)),
    "reuse": (
        "Attention of followers reused against plain tying, 3 leaders",
        lambda given, note: measure_reuse(given.workload, given.reuse),
    ),
    "start": ("Until something happens", lambda given, note: measure_start(given.workload)),
    "vector": (
        "Many small networks at once: one batched computation against as many processes",
        lambda given, note: measure_vector(given.workload, given.many),
    ),
    "table": ("Steps on the tying table", lambda given, note: measure_table(given.workload, given.table)),
    "memory": (
        "Memory by kind in a training step, against conventional training",
        lambda given, note: measure_memory(given.workload.config(), given.memory, note),
    ),
}

OPENMP = ("OMP_", "GOMP_", "KMP_", "MKL_")  # variables that say how threads compute and wait
BUSY = 0.5  # load average from which on the numbers are doubtful


def measure_all(options: BenchmarkOptions, console: Console, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure what is asked for, and show the tables.

    Args:
        options: what is asked for.
        console: for the tables, and how far it is.
        keep: is given machine, options and numbers after each measurement.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]  # of the last minute; an idle machine has about 0
    machine = describe_machine(find_device(options.workload.device)) | {"cores": os.cpu_count(), "load_at_start": load}
    machine["environment"] = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(OPENMP)}
    machine["onednn"] = onednn_is_chosen()
    shown = ("processor", "cores", "device", "threads", "platform", "load_at_start")
    versions = {name: machine["versions"][name] for name in ("python", "torch")}
    console.print(", ".join(f"{name} {value}" for name, value in ({n: machine[n] for n in shown} | versions).items()))
    if load > BUSY:
        console.print("warning: this machine is busy; threads then wait for each other, expect noise", style="yellow")
    content: dict[str, Any] = {"machine": machine, "measurements": {}, "seconds": {}}
    content["options"] = dataclasses.asdict(options)
    # Where results go says nothing of them, and files are passed on.
    del content["options"]["json"], content["options"]["growth"]["figure"]
    for i, name in enumerate(options.only):
        title, work = MEASUREMENTS[name]
        console.print(f"[{i + 1}/{len(options.only)}] measuring {name} ...", markup=False)
        begin = time.perf_counter()
        found = work(options, lambda text: console.print(f"  {text}", highlight=False, markup=False))
        seconds = time.perf_counter() - begin
        console.print((memory_table if name == "memory" else to_table)(title, found))
        console.print(f"{name} took {seconds:.1f} s", highlight=False)
        content["measurements"][name] = [row._asdict() for row in found]
        content["seconds"][name] = round(seconds, 1)
        keep(content)
