"""What a study is, and the small network that most of them train."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# In a command's arguments, the folder of the command before.
BEFORE = "{before}"


def folder_of(number: int) -> str:
    """Return what stands for the folder of a study's command with this number, in a later one's arguments."""
    return f"{{folder {number}}}"


@dataclass(frozen=True)
class Study:
    """What is asked, written down before it is run.

    Attributes:
        question: what is asked.
        answer: what counts as an answer.
        hours: CPU hours it may take.
        commands: each the arguments of `layer-tying`; the folder is added, and the data where `--dataset` names some.
            `BEFORE` stands for the folder of the command before, `folder_of(n)` for that of command n, also in paths.
        dataset: whether it needs `--dataset`.
        train_bytes: for each amount of training text, its own commands, in place of `commands`; empty for all there is.
        one_folder: whether all commands add to one folder, and none has its own.
        regime_map: whether the regime map is drawn of these amounts.
    """

    question: str
    answer: str
    hours: float
    commands: tuple[tuple[str, ...], ...] = ()
    dataset: bool = False
    train_bytes: Mapping[int, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    one_folder: bool = False
    regime_map: bool = False
