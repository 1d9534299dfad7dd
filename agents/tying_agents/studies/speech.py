"""Speech: does tying do there what it does in text and images? The study, written before it is run.

Fixed tyings are beside the controllers, since a controller that chooses has to be better than those that stay.
"""

from tying_agents.studies.recipes import CLIMB
from tying_agents.studies.study import Study

_ARMS = ("conventional", "dqn", "random", "random-static", "sandwich", "albert")

SPEECH = Study(
    "Speech (JapaneseVowels, naming the speaker of an utterance): what does tying cost, and is the paper's DQN better "
    "than chance, and tying that changes better than tying that stays?",
    "Paired differences of the test cross-entropy in percent over ten seeds, and of the accuracy, each arm at its own "
    "best rate of three tuning seeds; p < 0.05 after Holm's correction. dqn better than random: it has learned. random "
    "worse than random-static: changing costs here as it does in text. Accuracy has room for differences of a few "
    "points only: one of 370 test utterances is 0.27 points, and conventional training gets nearly all right.",
    1.6,
    (
        (
            *("compare", "--model", "speech", "--agents", *_ARMS),
            *(*CLIMB, "--learning-rates", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3"),
            *("--reference", "conventional", "--pairs", "dqn:random", "random:random-static"),
            *("--tuning-seeds", "3", "--seeds", "10", "--test-windows", "0"),
        ),
    ),
)
