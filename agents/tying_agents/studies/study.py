"""What a study is, and the small network that most of them train."""

from dataclasses import dataclass

# In a command's arguments, the folder of the command before.
BEFORE = "{before}"


def folder_of(number: int) -> str:
    """Return what stands for the folder of a study's command with this number, in a later one's arguments."""
    return f"{{folder {number}}}"


def quick(total_steps: int = 384, warmup_steps: int = 96) -> tuple[str, ...]:
    """Return options of a network that trains in a fraction of the preset's time and reaches its perplexity.

    It is for studies of many arms: the recipe of the tying table (docs/tuning.md) with twelve layers.
    """
    return (
        *("--n-embd", "32", "--n-head", "2", "--seq-len", "64", "--batch-size", "8", "--dropout", "0"),
        *("--beta2", "0.95", "--total-steps", str(total_steps), "--warmup-steps", str(warmup_steps), "--k", "4"),
        *("--validate-every", "48", "--test-windows", "512"),
    )


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
        train_bytes: the commands are made for each of these amounts of training text; none for all there is.
    """

    question: str
    answer: str
    hours: float
    commands: tuple[tuple[str, ...], ...]
    dataset: bool = False
    train_bytes: tuple[int, ...] = ()
