"""What an environment tells of a decision: the reward, `info`, and the replication map."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.decision import Outcome
from tying_env.episode import Episode
from tying_env.kinds import Kinds
from tying_env.primary.evaluation import MAX_MEAN_LOSS, UNMEASURED, Measurement, perplexity
from tying_env.render import replication_map_image, replication_map_text

# What there is to tell of an episode that has just begun.
BEGINNING = Outcome(math.inf, UNMEASURED, partition.TyingEvents(0, 0), False)


def reward_of(outcome: Outcome, config: EnvConfig) -> float:
    """Return a finite reward whatever was measured; the lowest there is if training diverged."""
    measured = _measured(outcome)
    if config.reward == "accuracy":
        return measured.accuracy or 0.0
    return -math.exp(MAX_MEAN_LOSS) if math.isinf(measured.mean_loss) else -perplexity(measured.mean_loss)


def info_of(episode: Episode, outcome: Outcome, classifies: bool) -> dict[str, Any]:
    """Return `info`: always the same keys, and no clock reading.

    Args:
        episode: as it is after the decision.
        outcome: of the decision; BEGINNING for none.
        classifies: whether the network classifies, so that there are accuracies.
    """
    tying, measured = episode.tying, _measured(outcome)
    accuracies = {"accuracy": measured.accuracy or 0.0, "validation_accuracy": episode.validation_accuracy}
    return {
        "tying": tying,
        "train_loss": outcome.train_loss,
        "perplexity": perplexity(measured.mean_loss),
        "validation_perplexity": episode.validation_perplexity,
        "input_dependence": math.inf if episode.input_dependence is None else episode.input_dependence,
        "independent_layers": len(partition.leaders(tying)),
        "trainable_parameters": episode.count_trainable(),
        "tied_events": outcome.events.tied,
        "untied_events": outcome.events.untied,
        "train_step": episode.train_step,
        "tokens": episode.tokens,
        "diverged": outcome.diverged,
        **(accuracies if classifies else {}),
    }


def rendered_tying(episode: Episode, render_mode: str, kinds: Kinds) -> str | npt.NDArray[np.uint8]:
    """Return the map of the tying in force: text for `"ansi"`, otherwise pixels (height, width, 3)."""
    tying, title = episode.tying, f"Replication map at training step {episode.train_step}"
    if render_mode == "ansi":
        independent = f"{len(partition.leaders(tying))} of {len(tying)} layers independent"
        return f"{title}: {independent}\n{replication_map_text(tying, kinds)}"
    return replication_map_image(tying, title, kinds)


def _measured(outcome: Outcome) -> Measurement:
    return UNMEASURED if outcome.diverged else outcome.measured
