"""Train the networks of runs on a task of GLUE, with their tying kept fixed (paper, Appendix C, Table 6).

layer-tying finetune runs/dqn runs/conventional --task sst2 --data path/to/glue
layer-tying finetune runs/dqn --task cola --data path/to/glue --methods full lora head --adapters dqn random

Each row of the table is a network and a method over seeds. With --adapters a controller ties LoRA's low-rank updates
while they train: each layer's is independent, or that of an earlier layer; a row with all of them independent
(conventional) is their control.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.downstream.settings import FinetuneOptions
from tying_agents.registry import find_agent
from tying_env.data.glue import TASKS, GlueSplit

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str], prog: str = "layer-tying finetune") -> int:
    """Train, print the table, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(FinetuneOptions, argv, prog, __doc__)
        refuse_early(options)
        from tying_agents.downstream.finetuning import make_results, scores_table
        from tying_agents.many.threads import computing_on

        with computing_on(options.threads):
            results = make_results(options, console)
        console.print(scores_table(options, results))
        return 0

    return guard.guarded(work, "With --out, the same command resumes from there.")


def refuse_early(options: FinetuneOptions) -> None:
    """Refuse what can be known to be wrong without torch, which takes seconds.

    Raises:
        FileNotFoundError: a network or a file of the task is not there.
        ValueError, TypeError, OSError, ImportError, tying_env.plugins.ForeignCodeError: there is no such controller.
    """
    for path in options.runs:
        if not (file := options.file(path)).is_file():
            raise FileNotFoundError(f"there is no network file {file}")
    splits: tuple[GlueSplit, ...] = ("train", "dev")
    if options.data is not None:
        for split in splits:
            TASKS[options.task].file(split, options.data)
    for agent in options.adapters:
        find_agent(agent)
