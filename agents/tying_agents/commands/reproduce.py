#!/usr/bin/env python
"""Reproduce a row of the paper's Table 1 at the paper's size, in slices of a given time.

Conventional training, the paper's DQN and uniformly random tyings train GPT-2 48 x 1600 with bfloat16 matrix products.
A slice goes on with the run that has come least far and stops in time; call the command again to go on, also after a
kill. Runs and results so far lie in --out.

python scripts/reproduce.py table1 --row wikitext-2 --minutes 9
python scripts/reproduce.py table1 --row wikitext-2 --minutes 1 --size small --dataset path/to/folder
"""

import contextlib
import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tying_agents.commands import guard
import torch
import tyro
from tying_agents.commands.presets import description
from tying_agents.commands.reproduction import as_markdown, as_table, product_rate, result_of
from rich.console import Console
from rich.markup import escape

from tying_agents.running.progress import ProgressBar
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run
from tying_agents.stop_signals import EXIT_CODES, StopSignals
from tying_env import PAPER, EnvConfig
from tying_env.files import to_json, written_whole
from tying_env.primary.models import find_device
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import CONFIG, SUMMARY

ARMS: tuple[Any, ...] = ("conventional", "dqn", "random")
SMALL = {"n_layer": 4, "n_embd": 32, "n_head": 2, "seq_len": 32, "batch_size": 4, "k": 3, "total_steps": 60}
CHECKPOINT_EVERY = {"paper": 50, "small": 4}  # decisions; gigabytes every few minutes at the paper's size
STOPPED = {"interrupted": 130, "terminated": 143}  # by a signal -> the exit code
RESULTS, TABLE = "results.json", "results.md"


@dataclass(frozen=True)
class Options:
    """Reproduce a row of the paper's Table 1, in slices of a given time."""

    table: tyro.conf.Positional[Literal["table1"]]
    """The paper's table."""
    row: Literal["wikitext-2", "wikitext-103", "lambada", "lm1b"] = "wikitext-2"
    """Its row: the data set."""
    minutes: float = 9.0
    """Length of this slice."""
    size: Literal["paper", "small"] = "paper"
    """The paper's network, or one that is small enough to try the command out anywhere."""
    out: Path | None = None
    """Folder of the runs and their results; the default is reproductions/<table>-<row>-<size>."""
    dataset: str | None = None
    """A folder with train.txt, valid.txt, test.txt in place of the hub's data set."""
    tokenizer: Literal["gpt2", "bytes"] = "gpt2"
    """GPT-2's BPE as in the paper, or bytes."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    seed: int = 0
    """Seed of all three runs."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise ValueError(f"minutes must be a finite number above 0, got {self.minutes!r}")

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self.out or Path("reproductions") / f"{self.table}-{self.row}-{self.size}"

    def run_config(self, agent: Any) -> RunConfig:
        """Return the settings of one of the runs."""
        sizes = PAPER | {"dataset": self.dataset or self.row, "tokenizer": self.tokenizer, "device": self.device}
        if self.size == "small":
            sizes |= SMALL | {"validate_every": 15, "validation_windows": 32}
        env = EnvConfig(**sizes, autocast=True, prefetch=True)
        # A checkpoint of the paper's network is gigabytes: one is enough.
        kept: Any = {"checkpoint_every": CHECKPOINT_EVERY[self.size], "keep_checkpoints": 1}
        return RunConfig(agent, seed=self.seed, run_dir=self.folder / agent, env=env, test_windows=0, **kept)


def main(argv: Sequence[str] | None = None) -> int:
    """Train for one slice, show and write what there is, and return the exit code."""

    def work(console: Console) -> int:
        options = tyro.cli(Options, args=argv, description=description(__doc__))
        with StopSignals(lambda text: console.print(text, highlight=False)) as signals:
            done = train(options, console, signals)
            write_results(options, console, done)
        for agent, error in done.failures.items():
            console.print(f"[bold red]error:[/] {agent}: {escape(error)}", highlight=False, soft_wrap=True)
        by_signal = done.code if signals.asked is None else EXIT_CODES[signals.asked]
        return by_signal or (1 if done.failures else 0)

    return guard.guarded(work)


class Watch:
    """Shows how a run goes, and stops it between two training steps when its time is up.

    Attributes:
        stopped_at: when it did so; None if it did not.
    """

    def __init__(self, shown: ProgressBar, end: float) -> None:
        self._shown, self._end = shown, end
        self._asked: list[float] = []  # when: before every training step, and between measurements
        self.stopped_at: float | None = None

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Show one decision."""
        self._shown.decided(record, tokens_per_second)

    def note(self, text: str) -> None:
        """Show a remark."""
        self._shown.note(text)

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


def train(options: Options, console: Console, signals: StopSignals) -> Slice:
    """Go on with the runs, each in turn, until the slice is over or they are; one that fails stops no other."""
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
        with naming_failure(done, agent), ProgressBar(console, config.env.total_steps) as progress:
            progress.note(f"{agent}: from training step {waiting[agent]:,}")
            watch = Watch(progress, time.monotonic() + share - done.saving)
            stop = StopSignals(watch.note, also=watch.should_stop)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            _, status = resume(path, watch, config, stop) if (path / CONFIG).exists() else run(config, watch, stop)
            done.measured[agent] = measure(watch, device, agent, done.measured)
            if watch.stopped_at is not None:
                done.saving = max(done.saving, time.monotonic() - watch.stopped_at)
            if code := STOPPED.get(status):
                done.code = code
                break
        begun = True
    return done


def measure(watch: Watch, device: torch.device, agent: str, earlier: dict[str, dict[str, Any]]) -> dict[str, Any]:
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
        raise ValueError(f"{path} is damaged: {error}; remove it to have it written anew") from error
    return found


def write_results(options: Options, console: Console, done: Slice) -> None:
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
        (TABLE, as_markdown(results, done.measured)),
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


if __name__ == "__main__":
    sys.exit(main())
