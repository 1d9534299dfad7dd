"""Which half of a block deserves weights of its own? The study, written before it is run.

Of a block's matrices attention has a third, the feed-forward part two thirds. So sharing one of them is compared with
whole blocks tied at about as many parameters: attention own and one feed-forward part (39 % of the blocks' weights),
one attention and six feed-forward parts (36 %), five runs of blocks (42 %); one attention alone (69 %); and the
sandwich of blocks (25 %), which the study `first-layer` found as good as conventional training.
"""

from tying_agents.studies.recipes import STEADIER, quick
from tying_agents.studies.study import Study

SUBLAYERS = Study(
    "Which half of a block deserves weights of its own: attention or the feed-forward part?",
    "Paired differences in percent to conventional training and between arms of about equal size, over ten seeds, each "
    "arm at its own best rate; p < 0.05 after Holm's correction. Random tyings that change say whether freer choice "
    "costs or helps: of blocks, and of sublayers.",
    2.1,
    (
        (
            *("compare", *quick(), "--agents", "--arms"),
            "conventional: --agent conventional",
            "attention shared: --agent shared-attention --units sublayers",
            "feed-forward shared: --agent shared-feed-forward --units sublayers",
            "attention shared, feed-forward in 6: --agent shared-attention --other-groups 6 --units sublayers",
            "blocks in 5: --agent contiguous --groups 5",
            "sandwich: --agent sandwich",
            "random blocks: --agent random",
            "random sublayers: --agent random --units sublayers",
            *("--reference", "conventional", "--pairs"),
            "feed-forward shared:blocks in 5",
            "attention shared, feed-forward in 6:blocks in 5",
            "feed-forward shared:attention shared, feed-forward in 6",
            "random sublayers:random blocks",
            *STEADIER,
        ),
    ),
)
