"""A network in a given number of bytes: what is best to fit, and what does sharing cost? Written before it is run.

The arms are those of the study `pruning`: groups of 1, 2, 4 and 12 of twelve layers. In four bits their files take
about 90, 45, 25 and 12 thousand bytes, and a limit that a network does not fit is a row that says so.
"""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import BEFORE, Study

PACKING = Study(
    "In so many bytes, which network predicts best, and does rounding hurt a weight more that more layers share: "
    "groups of 1, 2, 4 and 12 layers?",
    "Test bits per byte at each limit, five seeds, each arm at its own best rate: an arm is best at a limit if it is "
    "better than every other that fits in all five seeds. Sharing costs if the rise of the validation loss with one "
    "part of the blocks alone in four bits is higher for larger groups in all five seeds; a rise below 0.001 nats is "
    "none that matters. Rounding never ends better than training left the network: what an arm is behind before it is "
    "packed stands beside it.",
    0.5,
    (
        (
            *("compare", *quick(), "--agents", "--arms"),
            "groups of 1: --agent conventional",
            "groups of 2: --agent sequence --groups 6",
            "groups of 4: --agent sequence --groups 3",
            "group of 12: --agent albert",
            *(*WIDE, "--tuning-seeds", "2", "--seeds", "5"),
        ),
        (
            *("pack", BEFORE, "--max-bytes", "14000", "20000", "28000", "40000", "56000", "90000", "112000", "170000"),
            *("--windows", "256", "--test-windows", "512"),
        ),
    ),
)
