"""Trains the arms of a reproduction in slices of a given time."""

import contextlib
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tying_agents.reproducing.results import as_table, product_rate, result_of, table_as_markdown
from tying_agents.reproducing.settings import ReproduceOptions
from tying_agents.running.progress import ProgressBar
from tying_agents.running.runner import resume, run
from tying_agents.stopping import StopSignals
from tying_env.files import to_json, written_whole
from tying_env.primary.models import find_device
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import CONFIG, SUMMARY

ARMS: tuple[Any, ...] = ("conventional", "dqn", "random")
STOPPED = {"interrupted": 130, "terminated": 143}  # by a signal -> the exit code
RESULTS, TABLE = "results.json", "results.md"


class Watch:
    """Stops a run between two training steps when its time is up.

    Attributes:
        stopped_at: when it did so; None if it did not.
    """

    def __init__(self, end: float) -> None:
        self._end = end
        self._asked: list[float] = []  # when: before every training step, and between measurements
        self.stopped_at: float | None = None

    def should_stop(self) -> bool:
        """Tell whether it is time, but never before the first training step: every slice gets further."""
        now = time.monotonic()
        if self._asked and now >= self._end and self.stopped_at is None:
            self.stopped_at = now
        self._asked.append(now)
        return self.stopped_at is not None

    def step_seconds(self) -> float | None:
        """Return how long a training step takes: the median, which measuring and saving in between do not move."""
        gaps = [after - before for before, after in itertools.pairwise(self._asked)]
        return statistics.median(gaps) if gaps else None


@dataclass
class Slice:
    """What came of a slice beside the runs."""

    saving: float  # the most seconds that it has taken from a stop to the end of a run, earlier slices included
    measured: dict[str, dict[str, Any]]  # run -> what this slice, or an earlier one, has measured of it
    code: int = 0  # exit code, where a signal has ended it
    failures: dict[str, str] = field(default_factory=dict)  # run -> error


def train_slice(options: ReproduceOptions, console: Console, signals: StopSignals) -> Slice:
    """Resume the runs, each in turn, until the slice is over or they are; one that fails stops no other."""
    end = time.monotonic() + 60 * options.minutes
    before, begun, device = earlier(options.folder), False, find_device(options.device)
    done = Slice(before.get("seconds_to_save", 0.0), before.get("measured", {}))
    while signals.asked is None and (left := end - time.monotonic()) > (done.saving if begun else 0):
        waiting: dict[str, int] = {}
        for agent in ARMS:
            with naming_failure(done, agent):
                if agent not in done.failures and not is_over(options.folder / agent):
                    waiting[agent] = steps_done(options.folder / agent)
        if not waiting:
            break
        agent = min(waiting, key=lambda name: waiting[name])
        share = max(1.0, left / len(waiting)) if options.size == "paper" else left
        config, path = options.run_config(agent), options.folder / agent
        with naming_failure(done, agent):
            progress = ProgressBar(console)
            progress.note(f"{agent}: from training step {waiting[agent]:,}")
            watch = Watch(time.monotonic() + share - done.saving)
            stop, told = StopSignals(progress.note, also=watch.should_stop), [progress]
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            _, status = resume(path, told, config, stop) if (path / CONFIG).exists() else run(config, told, stop)
            done.measured[agent] = measure_speed(watch, device, agent, done.measured)
            if watch.stopped_at is not None:
                done.saving = max(done.saving, time.monotonic() - watch.stopped_at)
            if code := STOPPED.get(status):
                done.code = code
                break
        begun = True
    return done


def measure_speed(watch: Watch, device: torch.device, agent: str, earlier: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what is measured of a run beside its records; the chip's rate is measured once for each chip."""
    before = earlier.get(agent, {})
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    known = [one["chip_flops_per_second"] for one in earlier.values() if one["chip"] == name]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return {
        "chip": name,
        "chip_flops_per_second": known[0] if known else product_rate(device),
        "step_seconds": watch.step_seconds() or before.get("step_seconds"),
        "cuda_peak_bytes": max(peak, before.get("cuda_peak_bytes", 0)),
    }


@contextlib.contextmanager
def naming_failure(done: Slice, agent: str) -> Iterator[None]:
    """Take note of what one run fails of: no reason to lose the others."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, MemoryError) as error:
        done.failures[agent] = str(error) or repr(error)


def earlier(folder: Path) -> dict[str, Any]:
    """Return the results that earlier slices have left, nothing if there are none."""
    path = folder / RESULTS
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; remove it to have it written again") from error
    return found


def write_results(options: ReproduceOptions, console: Console, done: Slice) -> None:
    """Show and write what all slices have come to."""
    results: dict[str, dict[str, Any] | None] = {}
    for agent in ARMS:
        results[agent] = None
        with naming_failure(done, agent):
            results[agent] = result_of(options.folder / agent, done.measured.get(agent, {}))
    if not any(results.values()):
        return
    content = {"options": dataclasses.asdict(options), "seconds_to_save": done.saving, "measured": done.measured}
    for name, text in (
        (RESULTS, to_json(content | {"arms": results}, indent=2)),
        (TABLE, table_as_markdown(results, done.measured)),
    ):
        with written_whole(options.folder / name) as path:
            path.write_text(text + "\n", encoding="utf-8")
    console.print(as_table(results))
    console.print(f"results: {options.folder / TABLE}", highlight=False, markup=False, soft_wrap=True)


def is_over(path: Path) -> bool:
    """Tell whether a run has ended, the measurement on the test split included."""
    summary = RunDirectory(path).read_json(SUMMARY) if (path / SUMMARY).exists() else {"status": None}
    return summary["status"] == "diverged" or (summary["status"] == "finished" and summary["test"] is not None)


def steps_done(path: Path) -> int:
    """Return how many training steps the decisions of a run have come to."""
    records = RunDirectory(path).read_metrics() if (path / CONFIG).exists() else []
    return int(records[-1]["train_step"]) if records else 0
