"""The studies of docs/results: question, what would answer it, budget and commands, written before they are run."""

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
