#!/usr/bin/env python
"""Train one network while one controller ties its layers.

python scripts/run_agent.py --agent dqn
python scripts/run_agent.py --agent random --seed 3 --n-layer 24 --dataset path/to/folder
python scripts/run_agent.py --agent replay --trace runs/one --permute 1
python scripts/run_agent.py --model bert
python scripts/run_agent.py --model vit --agent random --reward accuracy
python scripts/run_agent.py --semantics published-code
python scripts/run_agent.py --preset paper --device cuda
torchrun --nproc-per-node 2 scripts/run_agent.py --agent dqn
python scripts/run_agent.py --resume runs/one

Ctrl-C or SIGTERM ends a run after the training step in progress; --resume goes on with it, to the same bits.
"""

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tying_agents.commands import guard
import tyro
from tying_agents.commands.presets import Semantics, as_published, chosen_preset, chosen_semantics, default_run, description
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from tying_agents.running.resuming import RunIsOver
from tying_agents.run_config import RunConfig, saved_config
from tying_agents.running.runner import default_name, resume, run
from tying_env.config import Size
from tying_env.distributed import LostProcess, joined, wait_for_all, world
from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import CONFIG

# What a run that is gone on with has already.
NOT_WITH_RESUME = ("preset", "semantics", "label", "run-dir")


@dataclass(frozen=True)
class Options:
    """Train one network while one controller ties its layers."""

    preset: Size = "small"
    """Where the defaults of the network (--model) come from: minutes on two CPU cores, or the paper's (a large GPU)."""
    semantics: Semantics = "paper"
    """Which defaults decide what tying means: the paper's Algorithm 1, or what its published code does instead."""
    resume: Path | None = None
    """Go on with this run, from its newest checkpoint. Its settings hold; others are refused."""
    run: RunConfig = field(default_factory=RunConfig)


def main() -> int:
    """Run, print what came of it, and return the exit code."""
    rank = int(os.environ.get("RANK", 0))  # torchrun's number of this process: the first one alone writes and prints
    console, quiet = Console(), Console(quiet=True)
    handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False)
    logging.getLogger("tying_env").addHandler(handler)
    logging.getLogger("tying_env").setLevel(logging.INFO)

    def work(console: Console) -> int:
        try:
            options = parse()
            with joined(on_cpu=options.run.env.device == "cpu"), own_run(options) as own:
                return train(own, console if rank == 0 else quiet)
        except LostProcess as error:
            print(f"error: {error}", file=sys.stderr, flush=True)  # from every process that noticed
            return 1
        except RunIsOver as error:
            console.print(str(error), highlight=False, markup=False, soft_wrap=True)
            return 3 if error.status == "diverged" else 1
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            hint = "lower --batch-size, --seq-len, --n-embd or --n-layer, or choose another --device"
            raise OSError(f"out of memory: {hint}\n{error}") from error

    return guard.guarded(work, console=console)


@contextlib.contextmanager
def own_run(options: Options) -> Iterator[Options]:
    """Give every process but the first a folder of its own to write to, which is removed in the end.

    The first one's is the run directory. A process that goes on with a run reads a copy of it.
    """
    if world().rank == 0:
        wait_for_all()  # until the others have their copies
        yield options
        return
    with tempfile.TemporaryDirectory(prefix="tying-env-") as folder:
        path = Path(folder) / "run"
        if options.resume is None:
            own = dataclasses.replace(options, run=dataclasses.replace(options.run, run_dir=path))
        else:
            shutil.copytree(options.resume, path)
            own = dataclasses.replace(options, run=dataclasses.replace(options.run, run_dir=path), resume=path)
        wait_for_all()
        yield own


def parse() -> Options:
    """Read the command line; model, preset and semantics decide the defaults, so that --help shows those in force.

    Raises:
        FileNotFoundError, ValueError: the run to go on with is not there, or its settings cannot be read.
    """
    preset, env = chosen_preset()
    semantics = chosen_semantics()
    first = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    first.add_argument("--resume", type=Path)
    for name in NOT_WITH_RESUME:
        first.add_argument(f"--{name}", f"--{name.replace('-', '_')}", nargs="?", const="")
    try:
        given = first.parse_known_args()[0]
    except argparse.ArgumentError:
        given = argparse.Namespace(resume=None)  # the full parser below says what is wrong
    resumed: Path | None = given.resume
    for name in NOT_WITH_RESUME:
        if resumed is not None and (value := getattr(given, name.replace("-", "_"))) is not None:
            raise ValueError(f"--{name} is decided by the run that --resume names: leave it out, got {value!r}")
    run_config = default_run(preset, env)
    if semantics == "published-code":
        run_config = as_published(run_config)
    if resumed is not None:
        run_config = saved_config(RunDirectory.open(resumed).read_json(CONFIG))
    default = Options(preset, semantics, resumed, run_config)
    return tyro.cli(Options, default=default, description=description(__doc__), config=(tyro.conf.OmitArgPrefixes,))


def train(options: Options, console: Console) -> int:
    """Run and show progress and results."""
    from tying_agents.running.progress import ProgressBar
    from tying_env.render import replication_map_text
    from tying_env.reports.summary import summary_rows

    config = options.run
    path = options.resume or config.run_dir or Path("runs") / default_name(config)
    try:
        with ProgressBar(console, config.episodes * config.env.total_steps) as progress:
            if options.resume is None:
                directory, status = run(dataclasses.replace(config, run_dir=path), progress)
            else:
                directory, status = resume(path, progress, config)
    except KeyboardInterrupt:  # at once, or while the test split was measured
        if (path / CONFIG).exists():
            say_how_to_go_on(path, console)
        raise
    table = Table(show_header=False, title="Dynamic layer tying", title_justify="left")
    for name, value in summary_rows(directory):
        table.add_row(name, value)
    console.print(table)
    if records := directory.read_metrics():
        copied = config.env.replication == "copied"
        console.print("Copied at the end (not tied):" if copied else "Replication map at the end:")
        console.print(replication_map_text(records[-1]["tying"]), highlight=False, markup=False)
    for text in (f"run directory: {directory.path}", f"curves:        tensorboard --logdir {directory.path.parent}"):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if status in ("interrupted", "terminated", "stopped"):
        say_how_to_go_on(path, console)
    return {"finished": 0, "diverged": 3, "interrupted": 130, "terminated": 143, "stopped": 143}[status]


def say_how_to_go_on(path: Path, console: Console) -> None:
    """Print the command that goes on with a run."""
    again = f"go on with:    python scripts/run_agent.py --resume {shlex.quote(str(path))}"
    console.print(again, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
