"""Relatives of ALBERT: what do steps, halting and narrow embeddings bring? The study, written before it is run."""

from tying_agents.studies.recipes import WIDE, quick
from tying_agents.studies.study import Study

RELATIVES = Study(
    "What do the parts of the relatives bring where layers are tied: a step embedding and adaptive halting (Universal "
    "Transformer) to one layer for all, and narrow embeddings (Subformer) to the sandwich?",
    "Paired differences in percent of the test perplexity, over ten seeds, each arm at its own best rate of two tuning "
    "seeds: albert with a part against albert without, and the sandwich with narrow embeddings against the sandwich; "
    "an interval that does not contain 0. p against conventional training after Holm's correction. Narrow embeddings "
    "take a tenth of the sandwich's parameters away: no difference is a gain there. (Halting saves no arithmetic "
    "here: what it would save is the steps that a position does not take.)",
    0.6,
    (
        (
            *("compare", *quick(), "--agents", "--arms"),
            "conventional: --agent conventional",
            "albert: --agent albert",
            "albert, steps: --agent albert --step-embedding learned",
            "albert, steps and halting: --agent albert --step-embedding learned --adaptive-halting",
            "sandwich: --agent sandwich",
            "sandwich, embeddings of 16: --agent sandwich --embedding-dim 16",
            *(
                "--reference",
                "conventional",
                "--pairs",
                "albert, steps:albert",
                "albert, steps and halting:albert, steps",
            ),
            "sandwich, embeddings of 16:sandwich",
            *(*WIDE, "--tuning-seeds", "2", "--seeds", "10"),
        ),
    ),
)
