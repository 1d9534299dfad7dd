"""The training run of one network: an episode with a trainer, that can be saved at any task."""

from collections.abc import Callable
from typing import Any

from tying_env import partition
from tying_env.budget import Budget
from tying_env.config import EnvConfig
from tying_env.data import Batches
from tying_env.decision import Outcome, Stage, Train
from tying_env.distributed import agreed_number
from tying_env.episode import Episode, Stopped, advance
from tying_env.primary.evaluation import Measurement, measure
from tying_env.primary.trainer import Trainer


class TrainingRun(Episode):
    """All that one training run is: `LayerTyingEnv.reset` makes a new one, `load_state_dict` fills one.

    Args:
        trainer: the primary network under training.
        reward_batches: draws the batches that rewards are measured on.
        config: the settings of the environment.
        frozen_start: whether the first k training steps lie before the first decision.
        pays: the budget of the run that this is a trial for; None for a run.
    """

    def __init__(
        self,
        trainer: Trainer,
        reward_batches: Batches,
        config: EnvConfig,
        frozen_start: bool,
        pays: Budget | None = None,
    ) -> None:
        super().__init__(reward_batches, config, frozen_start, pays)
        self.trainer = trainer

    @property
    def network_tying(self) -> partition.IntVector:
        """The tying that the network has now, shape (L,)."""
        return self.trainer.tied.tying

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.trainer.tokens

    def count_trainable(self) -> int:
        """Return the number of trainable parameters."""
        return self.trainer.count_trainable()

    def change(self, action: partition.IntVector) -> partition.TyingEvents:
        """Put a tying in force in the network, optimizer included."""
        return self.trainer.tie(action)

    def ends_earlier(self) -> None:
        """Let the schedule of the learning rate end earlier, too."""
        self.trainer.rates.end_at(self.ends_at)

    def run(
        self, action: partition.IntVector, should_stop: Callable[[], bool], validate: Callable[[], Measurement]
    ) -> Outcome:
        """Carry out a decision, or what is left of the one under way.

        Args:
            action: an action, shape (L,), checked.
            should_stop: asked between training steps, and before measuring.
            validate: measures on the validation split.

        Raises:
            ValueError: another action than that of the decision under way; nothing is changed.
            Stopped: `should_stop` said so between two training steps.
        """
        deciding = self.decide(action)
        while not isinstance(task := advance(deciding), Outcome):
            if isinstance(task, Train):
                task.result = self.trainer.train(task.steps, should_stop)
                continue
            # An early reward is not asked about: that the steps before it diverged would be forgotten.
            if task.stage != Stage.EARLY_REWARD and should_stop():
                raise Stopped
            task.result = validate() if task.stage == Stage.VALIDATION else self._measure_reward()
        return task

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return all that the rest of the run depends on; see `LayerTyingEnv.state_dict`."""
        return {"trainer": self.trainer.state_dict(copy), **super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Fill this new episode from a state; the network must have the state's tying already.

        Raises:
            ValueError: the state does not fit; throw this episode away then.
        """
        super().load_state_dict(state)
        # A state of before there were schedules does not count steps for them.
        self.trainer.load_state_dict({"steps": self.train_step} | state["trainer"])

    def _measure_reward(self) -> Measurement:
        """Measure on fresh training batches, as process 0 measures it."""
        trainer = self.trainer
        found = measure(trainer.network.model, trainer.task, self.next_reward_batches(), trainer.device)
        accuracy = None if found.accuracy is None else agreed_number(found.accuracy)
        return Measurement(agreed_number(found.mean_loss), accuracy)
