#!/usr/bin/env python
"""Reproduce a row of the paper's Table 1 at the paper's size, in slices of a given time.

Conventional training, the paper's DQN and uniformly random tyings train GPT-2 48 x 1600 with bfloat16 matrix products.
A slice goes on with the run that has come least far and stops in time; call the command again to go on. Runs and
results so far lie in --out.

python scripts/reproduce.py table1 --row wikitext-2 --minutes 9
python scripts/reproduce.py table1 --row wikitext-2 --minutes 1 --size small --dataset path/to/folder
"""

import dataclasses
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import _interrupts
import torch
import tyro
from _presets import description
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents.progress import ProgressBar
from agents.run_config import RunConfig
from agents.runner import resume, run
from tying_env import PAPER, EnvConfig
from tying_env.files import to_json, written_whole
from tying_env.primary.models import find_device
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import CONFIG, SUMMARY
from tying_env.seeding import torch_stream

ARMS: tuple[Any, ...] = ("conventional", "dqn", "random")
SMALL = {"n_layer": 4, "n_embd": 32, "n_head": 2, "seq_len": 32, "batch_size": 4, "k": 3, "total_steps": 60}
RESULTS, TABLE = "results.json", "results.md"
KINDS = ("weights_bytes", "gradients_bytes", "optimizer_state_bytes")
PRODUCT = {"cuda": 8192, "cpu": 1024}  # width of the square matrices whose product gives the chip's rate


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
        # A checkpoint of the paper's network is gigabytes: they are written when a slice ends.
        return RunConfig(
            agent, seed=self.seed, run_dir=self.folder / agent, env=env, checkpoint_every=0, test_windows=0
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Train for one slice, show and write what there is, and return the exit code."""
    console = Console()
    try:
        _interrupts.at_work()
        options = tyro.cli(Options, args=argv, description=description(__doc__))
        train(options, console)
        results = {agent: result_of(options.folder / agent) for agent in ARMS}
        rate = product_rate(find_device(options.device))
        content = {"options": dataclasses.asdict(options), "chip_flops_per_second": rate, "arms": results}
        for name, text in ((RESULTS, to_json(content, indent=2)), (TABLE, as_markdown(results, rate))):
            with written_whole(options.folder / name) as path:
                path.write_text(text + "\n", encoding="utf-8")
        console.print(as_table(results, rate))
        console.print(f"results: {options.folder / TABLE}", highlight=False, markup=False, soft_wrap=True)
        return 0
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1


class Watch:
    """Shows how a run goes, and after the first decision past a moment stops it as a scheduler would."""

    def __init__(self, shown: ProgressBar, end: float) -> None:
        self._shown, self._end = shown, end

    def decided(self, record: dict[str, Any], tokens_per_second: float) -> None:
        """Show one decision; ask the run to stop when it is time."""
        self._shown.decided(record, tokens_per_second)
        if time.monotonic() >= self._end:
            self._end = float("inf")
            signal.raise_signal(signal.SIGTERM)  # it ends between two training steps, and is saved

    def note(self, text: str) -> None:
        """Show a remark."""
        self._shown.note(text)


def train(options: Options, console: Console) -> None:
    """Go on with the runs, each in turn, until the slice is over or they are."""
    end = time.monotonic() + 60 * options.minutes
    while (left := end - time.monotonic()) > 0:
        waiting = [agent for agent in ARMS if not is_over(options.folder / agent)]
        if not waiting:
            return
        agent = min(waiting, key=lambda name: steps_done(options.folder / name))
        share = max(1.0, left / len(waiting)) if options.size == "paper" else left
        config, path = options.run_config(agent), options.folder / agent
        with ProgressBar(console, config.env.total_steps) as progress:
            progress.note(f"{agent}: from training step {steps_done(path):,}")
            watch = Watch(progress, time.monotonic() + share)
            _, status = resume(path, watch, config) if (path / CONFIG).exists() else run(config, watch)
        if status == "interrupted":  # Ctrl-C
            raise KeyboardInterrupt


def is_over(path: Path) -> bool:
    """Tell whether a run has ended."""
    return (path / SUMMARY).exists() and RunDirectory(path).read_json(SUMMARY)["status"] in ("finished", "diverged")


def steps_done(path: Path) -> int:
    """Return how many training steps the decisions of a run have come to."""
    records = RunDirectory(path).read_metrics() if (path / CONFIG).exists() else []
    return int(records[-1]["train_step"]) if records else 0


def result_of(path: Path) -> dict[str, Any] | None:
    """Return what one run has come to; None before its first slice."""
    if not (path / SUMMARY).exists():
        return None
    directory = RunDirectory(path)
    summary, records = directory.read_json(SUMMARY), directory.read_metrics()
    config = directory.read_json(CONFIG)
    env, tokens = config["env"], config["data"]["train"]
    epoch = max(1, tokens // (env["batch_size"] * env["seq_len"]))
    by_epoch: dict[int, float] = {}
    for record in records:
        if record["validation_perplexity"] is not None:
            by_epoch[record["train_step"] // epoch] = record["validation_perplexity"]
    # Every layer computes, tied or not: 6 operations a token for each weight that a product uses, and attention's.
    width, layers = env["n_embd"], env["n_layer"]
    vocabulary = 50257 if env["tokenizer"] == "gpt2" else 256
    operations = 6 * (layers * 12 * width**2 + vocabulary * width) + 12 * layers * env["seq_len"] * width
    return {
        "status": summary["status"],
        "train_step": summary["train_step"],
        "of_steps": env["total_steps"],
        "tokens_per_second": summary["tokens_per_second"],
        "flops_per_second": operations * summary["tokens_per_second"],
        "bytes": {kind: max((record[kind] for record in records), default=0) for kind in KINDS},
        "bytes_conventional": 4 * summary["parameters_conventional"],  # of the weights; as much each of the others
        "validation_perplexity_by_epoch": by_epoch,
        "best_validation_perplexity": summary["best_validation_perplexity"],
        "test": summary["test"],
    }


def product_rate(device: torch.device) -> float:
    """Return operations in a second of a large product in bfloat16 on this device, measured now."""
    n = PRODUCT[device.type]
    generator = torch_stream(0, "product", device)
    a, b = (torch.randn(n, n, device=device, generator=generator).to(torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(11):
        begin = time.perf_counter()
        torch.mm(a, b).sum().item()  # reading a number waits for a GPU
        seconds.append(time.perf_counter() - begin)
    return float(2 * n**3 / statistics.median(seconds))


COLUMNS = (
    *("", "steps", "tokens/s", "share of the chip's bf16 rate", "weights + gradients + optimizer, peak"),
    *("of conventional", "best validation perplexity"),
)


def lines(results: dict[str, dict[str, Any] | None], rate: float) -> list[tuple[str, ...]]:
    """Return the cells of the table, a tuple for each run."""
    found = []
    for agent, result in results.items():
        if result is None:
            found.append((agent, "not begun", *[""] * (len(COLUMNS) - 2)))
            continue
        held, best = sum(result["bytes"].values()), result["best_validation_perplexity"]
        found.append(
            (
                agent,
                f"{result['train_step']:,} of {result['of_steps']:,}",
                f"{result['tokens_per_second']:,.0f}",
                f"{result['flops_per_second'] / rate:.1%}",
                f"{held / 1e6:,.1f} MB",
                f"{held / (4 * result['bytes_conventional']):.3f} x",
                "not measured yet" if best is None else f"{best:,.2f}",
            )
        )
    return found


def as_table(results: dict[str, dict[str, Any] | None], rate: float) -> Table:
    """Return the results for the terminal."""
    table = Table(*COLUMNS)
    for line in lines(results, rate):
        table.add_row(*line)
    return table


def as_markdown(results: dict[str, dict[str, Any] | None], rate: float) -> str:
    """Return the results as a table in Markdown, with the validation perplexity after each epoch."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *lines(results, rate)]
    text = ["| " + " | ".join(row) + " |" for row in rows]
    text += ["", f"The chip's rate, measured with these results: {rate / 1e12:.2f} TFLOP/s in bfloat16.", ""]
    for agent, result in results.items():
        if result is not None and result["validation_perplexity_by_epoch"]:
            values = ", ".join(f"{e}: {v:,.1f}" for e, v in result["validation_perplexity_by_epoch"].items())
            text.append(f"- {agent}, validation perplexity by epoch (counted from 0): {values}")
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
