"""Train the networks of runs on a task of GLUE, with their tying kept fixed (paper, Appendix C, Table 6).

layer-tying finetune runs/dqn runs/conventional --task sst2 --data path/to/glue
layer-tying finetune runs/dqn --task cola --data path/to/glue --methods full lora head --adapters dqn random

Each row of the table is a network and a method over seeds. With --adapters a controller ties LoRA's low-rank updates
while they train: each layer's is independent, or that of an earlier layer; a row with all of them independent
(conventional) is their control.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import description
from tying_agents.downstream.settings import FinetuneOptions

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str], prog: str = "layer-tying finetune") -> int:
    """Train, print the table, and return the exit code."""

    def work(console: "Console") -> int:
        options = tyro.cli(
            FinetuneOptions, prog=prog, args=argv, description=description(__doc__), config=(tyro.conf.OmitArgPrefixes,)
        )
        from tying_agents.downstream.finetuning import make_results, to_table

        console.print(to_table(options, make_results(options, console)))
        return 0

    return guard.guarded(work, "With --out, the same command resumes from there.")
