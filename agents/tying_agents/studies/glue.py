"""GLUE: what is left of a tied BERT's advantage in size after finetuning? The study, written before it is run.

BERTs that have learned next to nothing come to the larger class, whatever is done to them afterwards, and compare
nothing. So they are trained ten times as long as the preset does, on the same text. SST-2 comes from the hub.
"""

from tying_agents.studies.recipes import CLIMB
from tying_agents.studies.study import Study, folder_of

_SEEDS = 5
_ARMS = ("conventional", "sandwich", "dqn")

GLUE = Study(
    "Does a BERT whose layers were tied while it trained do as well on SST-2 as one that trained conventionally, and "
    "may LoRA's updates be tied as well (the paper's Table 6)?",
    "First the conventional BERT, fully finetuned: accuracy above the larger class's in all five networks by more than "
    "two points, or the text and the steps were too few and nothing else is read. Then accuracy by method, five "
    "networks with five finetunings each: differences of the networks' means in points, with a 95% interval over the "
    "networks; updates tied by dqn against those tied at random and those that are all independent.",
    17.0,
    (
        (
            *("compare", "--model", "bert", "--total-steps", "6000", "--agents", "--arms"),
            *(f"{agent}: --agent {agent}" for agent in _ARMS),
            *(*CLIMB, "--learning-rates", "5e-4", "1e-3", "2e-3", "4e-3"),
            *("--tuning-seeds", "2", "--seeds", str(_SEEDS)),
        ),
        (
            "finetune",
            *(f"{folder_of(0)}/runs/{agent}/seed{seed}" for agent in _ARMS for seed in range(_SEEDS)),
            *("--task", "sst2", "--train-examples", "4000", "--methods", "full", "lora", "--adapters", "dqn", "random"),
            *("--seeds", "5"),
        ),
    ),
)
