"""Reproduce a row of the paper's Table 1 at the paper's size, in slices of a given time.

Conventional training, the paper's DQN and uniformly random tyings train GPT-2 48 x 1600 with bfloat16 matrix products.
A slice resumes the run that has come least far and stops in time; call the command again to continue, also after a
kill. Runs and results so far lie in --out.

layer-tying reproduce table1 --row wikitext-2 --minutes 9
layer-tying reproduce table1 --row wikitext-2 --minutes 1 --size small --dataset path/to/folder
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tying_agents.commands import guard
from tying_agents.commands.early import note_on_the_papers_recipe, read_options
from tying_agents.reproducing.settings import ReproduceOptions
from tying_agents.running.checks import check_early

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str], prog: str = "layer-tying reproduce") -> int:
    """Train for one slice, show and write what there is, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(ReproduceOptions, argv, prog, __doc__)
        check_early(options.run_config("conventional"))
        if text := note_on_the_papers_recipe(options.size, options.run_config("dqn").env):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        from tying_agents.reproducing.slices import train_slice, write_results
        from tying_agents.stopping import EXIT_CODES, StopSignals

        with StopSignals(lambda text: console.print(text, highlight=False)) as signals:
            done = train_slice(options, console, signals)
            write_results(options, console, done)
        for agent, error in done.failures.items():
            guard.say_error(console, f"{agent}: {error}")
        by_signal = done.code if signals.asked is None else EXIT_CODES[signals.asked]
        return by_signal or (1 if done.failures else 0)

    return guard.guarded(work)
