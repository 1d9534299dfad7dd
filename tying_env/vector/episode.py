"""The training run of one network among many that are computed together."""

from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.data import Batches
from tying_env.episode import Episode
from tying_env.vector.batch import TrainingBatch


class BatchedEpisode(Episode):
    """An episode whose network is one of a `TrainingBatch`.

    Args:
        batch: the networks.
        n: which of them.
        batches: its training batches.
        reward_batches: draws the batches that its rewards are measured on.
        config: the settings of the environment.
    """

    def __init__(
        self, batch: TrainingBatch, n: int, batches: Batches, reward_batches: Batches, config: EnvConfig
    ) -> None:
        super().__init__(reward_batches, config, frozen_start=True)
        self.batches = batches
        self._batch, self._n, self._tokens = batch, n, 0

    @property
    def network_tying(self) -> partition.IntVector:
        """The tying that the network has now, shape (L,)."""
        tying: partition.IntVector = self._batch.tying[self._n].copy()
        return tying

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self._tokens

    def count_trainable(self) -> int:
        """Return the number of trainable parameters."""
        return self._batch.count_trainable(self._n)

    def count_batch(self) -> None:
        """Count the tokens of a training step."""
        self._tokens += self._config.batch_size * self._config.seq_len

    def change(self, action: partition.IntVector) -> partition.TyingEvents:
        """Put a tying in force in the network, optimizer included."""
        return self._batch.change(self._n, action)
