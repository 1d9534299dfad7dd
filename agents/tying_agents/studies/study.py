"""What a study is."""

from dataclasses import dataclass

# In a command's arguments, the folder of the command before.
BEFORE = "{before}"


@dataclass(frozen=True)
class Study:
    """What is asked, written down before it is run.

    Attributes:
        question: what is asked.
        answer: what counts as an answer.
        hours: CPU hours it may take.
        commands: each the arguments of `layer-tying`; the folder is added, and the data where `--dataset` names some.
            `BEFORE` stands for the folder of the command before.
        dataset: whether it needs `--dataset`.
        train_bytes: the commands are made for each of these amounts of training text; none for all there is.
    """

    question: str
    answer: str
    hours: float
    commands: tuple[tuple[str, ...], ...]
    dataset: bool = False
    train_bytes: tuple[int, ...] = ()
