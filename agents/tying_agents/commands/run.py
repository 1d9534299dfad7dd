"""Train one network while one agent ties its layers.

layer-tying run --agent dqn
layer-tying run --agent random --seed 3 --n-layer 24 --dataset path/to/folder
layer-tying run --agent my_folder/my_controller.py:MyController
layer-tying run --agent replay --trace runs/one --permute 1
layer-tying run --model vit --agent random --reward accuracy
layer-tying run --semantics published-code
layer-tying run --env table --agent evolution
layer-tying run --preset paper --device cuda
layer-tying run --config run.toml
torchrun --nproc-per-node 2 -m tying_env run --agent dqn
layer-tying run --resume runs/one
layer-tying run --resume runs/one --total-steps 1200

Ctrl-C or SIGTERM ends a run after the training step in progress; --resume continues it, to the same bits. More
--total-steps make a run longer, also a finished one, if its learning rates do not go by its length (--schedule
constant, or wsd before it decays).
"""

import contextlib
import dataclasses
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tying_agents.commands import contest, guard
from tying_agents.commands.early import (
    Semantics,
    agents_in_help,
    chosen_settings,
    early,
    named_code,
    note_on_the_papers_recipe,
    read_options,
    with_chosen_agent,
)
from tying_agents.commands.typed import command_line, saying_what_to_type
from tying_agents.config_files import saved_config, to_toml
from tying_agents.run_config import RunConfig, refuse_unread
from tying_agents.running.checks import check_early
from tying_agents.running.saved import RunIsOver, settings_to_resume
from tying_env.config import Size
from tying_env.config.network import is_own
from tying_env.plugins import ForeignCodeError
from tying_env.runs.run_directory import CONFIG, SUMMARY, RunDirectory

if TYPE_CHECKING:
    from rich.console import Console

# What a run that is resumed has already.
NOT_WITH_RESUME = ("preset", "semantics", "label", "run-dir", "config")


@dataclass(frozen=True)
class Options:
    """Train one network while one agent ties its layers."""

    preset: Size = "small"
    """Where the defaults of the network (--model) come from: minutes on two CPU cores, or the paper's (a large GPU)."""
    semantics: Semantics = "paper"
    """Which defaults decide what tying means: the paper's Algorithm 1, or what its published code does instead."""
    resume: Path | None = None
    """Resume this run, from its newest checkpoint. Its settings hold; of others only more --total-steps are taken."""
    config: Path | None = None
    """Settings in a TOML file (--print-config writes one), or an earlier run's config.json; options overrule it."""
    print_config: bool = False
    """Print all settings as TOML and exit."""
    threads: int | Literal["auto"] | None = None
    """CPU threads to compute with; auto: measure a few training steps, and take what is fastest now. The default is as
    many as torch takes, or as the run that is resumed had. Other threads round otherwise."""
    run: RunConfig = field(default_factory=RunConfig)


def main(argv: Sequence[str], prog: str = "layer-tying run") -> int:
    """Run, print what came of it, and return the exit code."""
    if contest.is_table(argv):
        return contest.run(argv, prog)

    from rich.console import Console
    from rich.logging import RichHandler

    rank = int(os.environ.get("RANK", 0))  # torchrun's number of this process: the first one alone writes and prints
    console, quiet = guard.plain_console(), Console(quiet=True)
    logger = logging.getLogger("tying_env")
    if not logger.handlers:
        logger.addHandler(RichHandler(console=console, show_path=False, show_time=False, show_level=False))
    logger.setLevel(logging.INFO)

    def work(console: "Console") -> int:
        options = parse(argv, prog)
        if options.print_config:
            console.print(to_toml(options.run), end="", highlight=False, markup=False, soft_wrap=True)
            return 0
        try:
            refuse_early(options)
        except RunIsOver as error:
            return say_it_is_over(error, console)
        from tying_env.distributed import LostProcess, joined

        try:
            with joined(on_cpu=options.run.env.device == "cpu"), own_run(options) as own:
                return train_and_show(own, console if rank == 0 else quiet, prog)
        except LostProcess as error:
            print(f"error: {error}", file=sys.stderr, flush=True)  # from every process that noticed
            return 1
        except RunIsOver as error:
            return say_it_is_over(error, console)
        except ForeignCodeError:
            raise
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            hint = "lower --batch-size, --seq-len, --n-embd or --n-layer, or choose another --device"
            raise OSError(f"out of memory: {hint}\n{error}") from error

    return guard.guarded(work, console=console)


def say_it_is_over(error: RunIsOver, console: "Console") -> int:
    """Print that there is nothing to resume, and return the exit code."""
    console.print(str(error), highlight=False, markup=False, soft_wrap=True)
    return 3 if error.status == "diverged" else 1


def refuse_early(options: Options) -> None:
    """Refuse what can be known to be wrong without torch, the data and the network, which take seconds.

    Raises:
        FileExistsError: the run directory is there already.
        tying_agents.running.saved.RunIsOver, ValueError: the run cannot be resumed.
        ValueError, TypeError, OSError, ImportError, tying_env.plugins.ForeignCodeError: see `check_early`.
    """
    config = options.run
    if isinstance(options.threads, int) and options.threads < 1:
        raise ValueError(f"--threads must be auto or at least 1, got {options.threads}")
    if options.resume is None:
        refuse_unread([config])
        if config.run_dir is not None and config.run_dir.exists():
            raise FileExistsError(f"the run directory {config.run_dir} exists already; choose another --run-dir")
    elif not is_own(config.env.model):  # how many layers it has its code says
        settings_to_resume(RunDirectory.open(options.resume), config)
    check_early(config)


@contextlib.contextmanager
def own_run(options: Options) -> Iterator[Options]:
    """Give every process but the first a folder of its own to write to, which is removed in the end.

    The first one's is the run directory. A process that resumes a run reads a copy of it.
    """
    from tying_env.distributed import wait_for_all, world

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


def parse(argv: Sequence[str], prog: str) -> Options:
    """Read the command line; what it begins with decides the defaults, so that --help shows those in force.

    Raises:
        FileNotFoundError, ValueError: the run to resume is not there, or its settings cannot be read.
    """
    with saying_what_to_type(argv, prog):
        default = _defaults(argv)
    return read_options(Options, argv, prog, f"{__doc__}\n\n{agents_in_help()}", default)


def _defaults(argv: Sequence[str]) -> Options:
    """Return the options that are in force where a command line says nothing else."""
    given = early(argv, "resume", *NOT_WITH_RESUME)
    if given.resume:
        for name in NOT_WITH_RESUME:
            if (value := getattr(given, name.replace("-", "_"))) is not None:
                raise ValueError(f"--{name} is decided by the run that --resume names: leave it out, got {value!r}")
        about = RunDirectory.open(Path(given.resume)).read_json(CONFIG)
        if early(argv, several=("callbacks",)).callbacks is not None:
            about["callbacks"] = []  # those of the command line are in their place
        saved = with_chosen_agent(saved_config(about, named_code(argv)), argv)
        return Options(resume=Path(given.resume), run=saved)
    chosen = chosen_settings(argv)
    return Options(chosen.preset, chosen.semantics, config=chosen.config, run=chosen.run)


def train_and_show(options: Options, console: "Console", prog: str) -> int:
    """Run and show progress and results."""
    from rich.table import Table

    from tying_agents.running.progress import ProgressBar
    from tying_agents.running.runner import default_folder, resume, run
    from tying_agents.running.threads import set_threads
    from tying_env.kinds import Kinds
    from tying_env.render import replication_map_text
    from tying_env.reports.summary import summary_rows

    config = options.run
    path = options.resume or config.run_dir or default_folder(config)
    new = options.resume is None and not path.exists()
    progress = ProgressBar(console)
    if options.resume is None and (text := note_on_the_papers_recipe(options.preset, config.env)):
        progress.note(text)
    about = None if options.resume is None else RunDirectory.open(options.resume).read_json(CONFIG)
    set_threads(options.threads, config, about, progress.note)
    try:
        if options.resume is None:
            directory, status = run(dataclasses.replace(config, run_dir=path), [progress])
        else:
            directory, status = resume(path, [progress], config)
    except KeyboardInterrupt:  # at once, or while the test split was measured
        if (path / CONFIG).exists():
            say_how_to_resume(path, config, console, prog)
        raise
    except ForeignCodeError:  # the run can be resumed when that code is mended
        if (path / CONFIG).exists() and (new or options.resume is not None):
            say_how_to_resume(path, config, console, prog)
        raise
    table = Table(show_header=False, title="Dynamic layer tying", title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in summary_rows(directory):
        table.add_row(name, value)
    console.print(table)
    if records := directory.read_metrics():
        copied, kinds = config.env.replication == "copied", Kinds.described(directory.read_json(CONFIG))
        console.print("Copied at the end (not tied):" if copied else "Replication map at the end:")
        console.print(replication_map_text(records[-1]["tying"], kinds), highlight=False, markup=False)
    for text in (f"run directory: {directory.path}", f"curves:        tensorboard --logdir {directory.path.parent}"):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if status in ("interrupted", "terminated", "stopped"):
        say_how_to_resume(path, config, console, prog)
    if status == "stopped" and (reason := directory.read_json(SUMMARY)["stop_reason"]) is not None:
        console.print(f"stopped:       {reason}", highlight=False, markup=False, soft_wrap=True)
        return 0
    return {"finished": 0, "diverged": 3, "interrupted": 130, "terminated": 143, "stopped": 143}[status]


def say_how_to_resume(path: Path, config: RunConfig, console: "Console", prog: str) -> None:
    """Print the command that resumes a run; code of the user's own has to be named again."""
    command = command_line(prog, ["--resume", str(path), *config.foreign_options()])
    console.print(f"resume with:   {command}", highlight=False, markup=False, soft_wrap=True)
