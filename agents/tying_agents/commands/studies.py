"""Make a study of docs/results, or list them: each is a question, what would answer it, a budget and some commands.

A study that was stopped, or killed, resumes when it is called again, as its commands do.

layer-tying studies
layer-tying studies --study controllers-sotu
layer-tying studies --study controllers-wikitext --dataset path/to/wikitext-2 --out studies
"""

import importlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.studies.making import commands_of, text_folder
from tying_agents.studies.plan import STUDIES

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Make a study of docs/results, or list them."""

    study: str | None = None
    """Which one; without it, all are listed."""
    dataset: str | None = None
    """A text file or folder, for the studies that are not about the packaged text."""
    out: Path = Path("studies")
    """Folder of the runs, with a folder for each study."""

    def __post_init__(self) -> None:
        if self.study is None:
            return
        if self.study not in STUDIES:
            raise ValueError(f"study must be one of {', '.join(STUDIES)}, got {self.study!r}")
        if STUDIES[self.study].dataset != (self.dataset is not None):
            needs = "needs" if STUDIES[self.study].dataset else "takes no"
            raise ValueError(f"the study {self.study!r} {needs} --dataset")


def main(argv: Sequence[str], prog: str = "layer-tying studies") -> int:
    """Run the commands of a study, or list all studies; return the exit code of the first command that failed."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        if options.study is None:
            for name, study in STUDIES.items():
                text = f"{name} ({study.hours:g} CPU hours)\n  question: {study.question}\n  answer:   {study.answer}"
                console.print(text, highlight=False, markup=False, soft_wrap=True)
                for words in commands_of(name, options.out, "PATH" if study.dataset else None):
                    command = shlex.join(["layer-tying", *words])
                    console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)
            return 0
        study = STUDIES[options.study]
        if study.train_bytes:
            from tying_agents.studies.text import cut_text

            for train_bytes in study.train_bytes:
                folder = text_folder(options.study, options.out, train_bytes)
                cut_text(options.dataset or "sotu", train_bytes, folder)
        for words in commands_of(options.study, options.out, options.dataset):
            if words[0] == "align" and Path(words[-1]).exists():  # it writes its folder as a whole
                continue
            module: Any = importlib.import_module(f"tying_agents.commands.{words[0]}")
            if code := module.main(words[1:], f"layer-tying {words[0]}"):
                return int(code)
        if study.regime_map:
            write_map(options.out / options.study, tuple(study.train_bytes), console)
        return 0

    return guard.guarded(work, "The same command resumes from what is in the folder.")


def write_map(folder: Path, train_bytes: Sequence[int], console: "Console") -> None:
    """Write the regime map of a study into its folder, as a table and a figure, and print the table."""
    from tying_agents.studies.regimes import as_table, draw_regimes, read_regimes
    from tying_env.reports.drawing import save_figure
    from tying_env.reports.page import write_page

    regimes = read_regimes({size: folder / f"{size // 1000}KB" / "runs" for size in train_bytes})
    write_page(as_table(regimes), folder / "regimes.md", overwrite=True)
    paths = save_figure(draw_regimes(regimes), folder, "regimes")
    console.print(as_table(regimes), highlight=False, markup=False, soft_wrap=True)
    for path in (folder / "regimes.md", *paths):
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
