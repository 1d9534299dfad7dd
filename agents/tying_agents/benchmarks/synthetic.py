"""Random tokens in place of text, for measurements at vocabularies of any size."""

from typing import Any

import numpy as np

from tying_env import EnvConfig
from tying_env.data import Batch, Batches, RandomWindows
from tying_env.data.corpus import Split
from tying_env.primary.tasks import CausalLM
from tying_env.primary.workloads import Workload
from tying_env.seeding import numpy_stream


class RandomTokens(Workload):
    """A GPT-2 that trains on random tokens of a vocabulary.

    Args:
        config: sizes and options.
        vocab_size: V, at most 65,536.
    """

    def __init__(self, config: EnvConfig, vocab_size: int) -> None:
        self.config, self.task, self.sizes = config, CausalLM(), {"vocab_size": vocab_size}
        self.tokens = numpy_stream(0, "tokens").integers(vocab_size, size=1 << 16, dtype=np.uint16)

    def training_batches(self, seed: int) -> Batches:
        """Return random windows."""
        config, stream = self.config, numpy_stream(seed, "training batches")
        return RandomWindows(self.tokens, config.batch_size, config.seq_len, stream)

    def reward_batches(self, seed: int) -> Batches:
        """There are none: nothing here decides on a tying."""
        raise NotImplementedError

    def examples(self, split: Split, most: int) -> Batch:
        """There are none: random tokens have nothing to be measured on."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return the size of the vocabulary."""
        return dict(self.sizes)
