"""Measure what this package costs and what tying saves.

The arms of a measurement take turns in one process, so that whatever else the machine does hits all of them. Numbers
are medians over the turns, with their range; a ratio is the median of the ratios of single turns.

layer-tying benchmark
layer-tying benchmark memory --paper-n-layer 0
layer-tying benchmark --only step head --repeats 30 --json benchmark.json
layer-tying benchmark --page docs/performance.md --files docs/results/benchmark_*.json
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tying_agents.benchmarks.settings import BenchmarkOptions
from tying_agents.commands import guard
from tying_agents.commands.early import read_options

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str], prog: str = "layer-tying benchmark") -> int:
    """Measure, show, write, or write a page of what was measured; return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(BenchmarkOptions, _spelled_out(argv), prog, __doc__)
        if options.page is not None:
            from tying_agents.benchmarks.page import write_page

            names = write_page(options.page, options.files)
            console.print(f"written into {options.page}: {', '.join(names)}", highlight=False, soft_wrap=True)
            return 0
        from tying_agents.benchmarks.all import measure_all
        from tying_env.files import to_json, written_whole

        def keep(content: dict[str, Any]) -> None:
            if options.json is not None:
                with written_whole(options.json) as path:
                    path.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")

        measure_all(options, console, keep)
        return 0

    return guard.guarded(work, "With --json, what was measured is in the file.")


def _spelled_out(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the measurements named first turned into the option that means them."""
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    return [*(["--only"] if named else []), *argv]
