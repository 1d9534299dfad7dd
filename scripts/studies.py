#!/usr/bin/env python
"""Make the studies of docs/results: a question, what would answer it, a budget and a few `layer-tying` commands each.

    python scripts/studies.py --list
    python scripts/studies.py controllers-sotu --out studies
    python scripts/studies.py controllers-wikitext --dataset path/to/wikitext-2 --out studies

A study that was stopped, or killed, resumes when it is called again, as `compare` and `ablations` do.
"""

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Learning rates of the small GPT-2 preset, 12 layers x 64: chosen with three tuning seeds (dqn, random, conventional;
# docs/tuning.md) or two (the others; the study "rates"). No outcome lies at an edge of its grid.
_RATES = {
    "dqn": "1e-3",
    "random": "1e-3",
    "ppo": "1e-3",
    "random-static": "2e-3",
    "sandwich": "2e-3",
    "albert": "2e-3",
    "conventional": "4e-3",
}


@dataclass(frozen=True)
class Study:
    """What is asked, written down before it is run.

    Attributes:
        question: what is asked.
        answer: what counts as an answer.
        hours: CPU hours it may take.
        commands: each the arguments of `layer-tying`; the folder is added, and the data where `--dataset` names some.
        dataset: whether it needs `--dataset`.
    """

    question: str
    answer: str
    hours: float
    commands: tuple[tuple[str, ...], ...]
    dataset: bool = False


def _arm(name: str, options: str, rate: str) -> str:
    return f"{name}: {options} --learning-rate {rate}"


def _arms(*agents: str) -> tuple[str, ...]:
    return tuple(_arm(name, f"--agent {name}", _RATES[name]) for name in agents)


# With rewards that mean nothing, at the rate of the agent itself.
_SHUFFLED = _arm("dqn+shuffled", "--agent dqn --rewards shuffled", _RATES["dqn"])
_BETTER = (
    "p < 0.05 after Holm's correction, exact paired test over ten seeds, on the test split: dqn or ppo better than "
    "random is learning if they are also better than themselves with shuffled rewards. Else no controller is better "
    "than chance in so many decisions. Static arms say what dynamic tying has to beat."
)

STUDIES = {
    "rates": Study(
        "Which learning rate is best, by validation, for the arms of `controllers` that have none yet?",
        "A rate whose neighbours in the grid are both worse in the mean of two tuning seeds; a rate at an edge means "
        "a wider grid.",
        0.9,
        (
            (
                *("compare", "--agents", "random-static", "sandwich", "albert", "ppo", "--seeds", "1"),
                *("--learning-rates", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3", "--tuning-seeds", "2"),
            ),
        ),
    ),
    "controllers-sotu": Study(
        "GPT-2 preset (12 layers x 64, bytes, 600 steps): is a learned controller better than chance, and is tying "
        "that changes better than tying that stays?",
        _BETTER,
        1.8,
        (("compare", "--agents", "--arms", *_arms(*_RATES), _SHUFFLED, "--seeds", "10"),),
    ),
    "controllers-wikitext": Study(
        "The same on another corpus, with the rates chosen on sotu.",
        _BETTER,
        1.4,
        (
            (
                *("compare", "--agents", "--arms"),
                *(*_arms("dqn", "random", "random-static", "sandwich", "albert", "conventional"), _SHUFFLED),
                *("--seeds", "10"),
            ),
        ),
        dataset=True,
    ),
}


def commands_of(name: str, out: Path, dataset: str | None) -> list[list[str]]:
    """Return the commands of a study, each with a folder of its own."""
    study = STUDIES[name]
    data = ["--dataset", dataset] if dataset else []
    folders = [out / name] if len(study.commands) == 1 else [out / name / words[0] for words in study.commands]
    return [[*words, *data, "--out", str(folder)] for words, folder in zip(study.commands, folders, strict=True)]


def main() -> int:
    """Run a study, or print them all; returns the exit code of the first command that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", choices=STUDIES, help="which one")
    parser.add_argument("--list", action="store_true", help="print what each asks, and its commands")
    parser.add_argument("--dataset", help="a text file or folder, for the studies that are not about sotu")
    parser.add_argument("--out", type=Path, default=Path("studies"), help="folder of the runs (default: studies)")
    options = parser.parse_args()
    if options.list:
        for name, study in STUDIES.items():
            print(f"{name} ({study.hours:g} CPU hours)\n  question: {study.question}\n  answer:   {study.answer}")
            for words in commands_of(name, options.out, "PATH" if study.dataset else None):
                print(f"  {shlex.join(['layer-tying', *words])}")
        return 0
    if options.study is None:
        parser.error("which study? --list shows them")
    if STUDIES[options.study].dataset != bool(options.dataset):
        parser.error(f"{options.study} {'needs' if STUDIES[options.study].dataset else 'takes no'} --dataset")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # compare gives each of its runs one thread
    for words in commands_of(options.study, options.out, options.dataset):
        code = subprocess.run([sys.executable, "-m", "tying_env", *words], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
