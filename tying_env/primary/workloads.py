"""What the environment trains: a network, the data it learns from, and its task, bundled.

The environment itself does not know whether a language model or an image classifier is under it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tying_env.config import EnvConfig
from tying_env.config.network import DECODER, is_own
from tying_env.data import (
    Batch,
    Batches,
    Corpus,
    MaskedWindows,
    RandomWindows,
    ShuffledWindows,
    Tokenizer,
    evaluation_windows,
    load_corpus,
    mask_tokens,
)
from tying_env.data.batches import cut
from tying_env.data.corpus import SPLITS, Split
from tying_env.data.tokenizers import TokenArray
from tying_env.kinds import Kinds
from tying_env.primary.building import build_network, build_skeleton
from tying_env.primary.checkpoint import check_checkpoint, load_checkpoint
from tying_env.primary.evaluation import Evaluation, evaluate, measure, perplexity
from tying_env.primary.frequencies import frequency_perplexity, log_frequencies
from tying_env.primary.models import PrimaryNetwork, Sizes, checked_kinds
from tying_env.primary.tasks import CausalLM, MaskedLM, PonderingLM, Task
from tying_env.seeding import numpy_stream, torch_randomness_from


class Workload(ABC):
    """A network to train, and all it takes.

    Attributes:
        config: the settings of the environment.
        task: turns a batch into a loss.
        sizes: what the network has to know of its data, enough to build it again without them.
        classifies: whether accuracy is measured.
    """

    config: EnvConfig
    task: Task
    sizes: Sizes
    classifies = False
    _kinds: Kinds | None = None

    @property
    def kinds(self) -> Kinds:
        """The kinds of the units."""
        return self._kinds or self.config.kinds

    def build(self, device: torch.device, generator: torch.Generator, *, fresh: bool = True) -> PrimaryNetwork:
        """Return a new network.

        Args:
            device: where it goes.
            generator: draws its weights, where they do not come from a checkpoint.
            fresh: whether an episode starts with it; if not, its weights are about to be replaced by saved ones, and
                the checkpoint is not read.

        Raises:
            FileNotFoundError, ValueError: the checkpoint is not there or does not fit.
        """
        network = build_network(self.config, self.sizes, device, generator)
        if fresh and self.config.init_from is not None:
            with torch_randomness_from(generator):
                load_checkpoint(network, self.config)
        return network

    def skeleton(self) -> PrimaryNetwork:
        """Return the network's shapes: Parameters without values, unless it is the user's own.

        Raises:
            ValueError, KeyError, RuntimeError, TypeError: as `build_skeleton`.
        """
        return build_skeleton(self.config, self.sizes)

    def files(self) -> dict[str, bytes]:
        """Return the files that a run directory keeps, so that it can be read without what was trained on: by name."""
        return {}

    @abstractmethod
    def training_batches(self, seed: int) -> Batches:
        """Return the stream of training batches under a seed."""

    @abstractmethod
    def reward_batches(self, seed: int) -> Batches:
        """Return the stream of random training batches on which rewards are measured."""

    @abstractmethod
    def examples(self, split: Split, most: int) -> Batch:
        """Return up to `most` examples of a split, 0 for all. They never change.

        Raises:
            ValueError: there is no such split.
        """

    def batches_of(self, split: Split, most: int) -> Iterator[Batch]:
        """Yield what `examples` returns in batches, as the task takes them."""
        return map(self._prepared, cut(self.examples(split, most), self.config.batch_size))

    def evaluate(self, model: nn.Module, split: Split, most: int, device: torch.device) -> Evaluation:
        """Measure a network on `device` on up to `most` examples of a split, without dropout."""
        found = measure(model, self.task, self.batches_of(split, most), device, dependence=True)
        shares = (found.accuracy, found.input_dependence)
        return Evaluation(found.mean_loss, perplexity(found.mean_loss), None, found.predictions, *shares)

    def frequency_perplexity(self, split: Split, most: int) -> float | None:
        """Return the frequency baseline on what `evaluate` measures; None where the classes are not known."""
        return None

    def frequency_accuracy(self, split: Split, most: int) -> float | None:
        """Return the share of the training split's most frequent class; None where nothing is classified."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what identifies the data, ready for JSON: what a run writes into its config.json."""

    def _find_kinds(self, network: PrimaryNetwork) -> None:
        """Find the kinds of unit, and check that those of a kind can be tied; raises as `checked_kinds`."""
        self._kinds = checked_kinds(network, self.config)

    def _prepared(self, batch: Batch) -> Batch:
        """Return examples as the task takes them."""
        return batch


def open_workload(config: EnvConfig, sizes: Sizes | None = None, tokenizer: Tokenizer | None = None) -> Workload:
    """Load the data that `config` names.

    Args:
        config: the settings. A network of the user's own is made by the code that they name: they come from the user,
            or from `load_run` with the user's word for it.
        sizes: of a network that is there already, whose checkpoint is not needed then.
        tokenizer: of the same, where it is a checkpoint's.

    Raises:
        ValueError: unknown data, or data that do not suit the network; the message says what.
        FileNotFoundError, ImportError, ConnectionError, OSError: the data cannot be had.
        tying_env.plugins.ForeignCodeError: code of the user's own raised.
    """
    # Further kinds of network build on the classes below.
    if is_own(config.model):
        from tying_env.primary.own import open_own

        return open_own(config)
    if config.model == DECODER:
        from tying_env.primary.decoder_text import DecoderText

        return DecoderText(config, sizes, tokenizer)
    if config.init_from is not None and sizes is None:
        check_checkpoint(config)
    match config.model:
        case "gpt2" | "llama":
            return CausalText(config)
        case "bert":
            return MaskedText(config)
        case "vit":
            from tying_env.primary.image_workload import Images

            return Images(config, sizes)
        case "speech":
            from tying_env.primary.speech_workload import Speech

            return Speech(config, sizes)
    raise ValueError("the model 'custom' is a network of your own: LayerTyingEnv(model=my_model, batches=...)")


class Text(Workload):
    """A network on a text that is cut into tokens."""

    corpus: Corpus

    def describe(self) -> dict[str, Any]:
        """Return hash and size of the text."""
        return {"content_key": self.corpus.folder.name, **{split: len(_tokens(self.corpus, split)) for split in SPLITS}}

    @functools.cached_property
    def _log_frequencies(self) -> npt.NDArray[np.float64]:
        """Those of the tokens: a run asks again and again, and the text is long."""
        return log_frequencies(self.corpus.train, self.corpus.tokenizer.vocab_size)


class CausalText(Text):
    """A network that predicts the next token: a GPT-2, a LLaMA, or what builds on this class."""

    def __init__(self, config: EnvConfig, tokenizer: Tokenizer | None = None) -> None:
        self.config = config
        self.task: Task = PonderingLM(config.ponder_cost) if config.adaptive_halting else CausalLM()
        self.corpus = _open_corpus(config, config.seq_len, tokenizer)
        self.byte_lengths = self.corpus.tokenizer.byte_lengths
        self.sizes = {"vocab_size": self.corpus.tokenizer.vocab_size}

    def training_batches(self, seed: int) -> Batches:
        """Return the windows of the training split in random order; epoch after epoch."""
        config, stream = self.config, numpy_stream(seed, "training batches")
        return ShuffledWindows(self.corpus.train, config.batch_size, config.seq_len, stream)

    def reward_batches(self, seed: int) -> Batches:
        """Return random windows of the training split."""
        config, stream = self.config, numpy_stream(seed, "reward batches")
        return RandomWindows(self.corpus.train, config.batch_size, config.seq_len, stream)

    def examples(self, split: Split, most: int) -> npt.NDArray[np.integer[Any]]:
        """Return windows, (N, T + 1)."""
        return evaluation_windows(_tokens(self.corpus, split), self.config.seq_len, most)

    def evaluate(self, model: nn.Module, split: Split, most: int, device: torch.device) -> Evaluation:
        """Measure a network; perplexity is per token, and bits per byte of text are there as well."""
        windows = self.examples(split, most)
        return evaluate(model, self.task, windows, self.config.batch_size, device, self.byte_lengths)

    def frequency_perplexity(self, split: Split, most: int) -> float | None:
        """Return that of the token frequencies."""
        return frequency_perplexity(self._log_frequencies, self.examples(split, most)[:, 1:])


class MaskedText(Text):
    """A BERT that predicts hidden tokens."""

    def __init__(self, config: EnvConfig) -> None:
        if config.seq_len < 2:
            raise ValueError(f"seq_len must be at least 2 where tokens are hidden, got {config.seq_len}")
        self.config = config
        self.task = MaskedLM()
        # All T tokens of a window are read, where next-token prediction reads T and predicts one more.
        self.corpus = _open_corpus(config, config.seq_len - 1)
        self.sizes = {"vocab_size": self.corpus.tokenizer.vocab_size}

    def training_batches(self, seed: int) -> Batches:
        """Return the windows of the training split in random order, with new masks in every epoch."""
        config, stream = self.config, numpy_stream(seed, "training batches")
        windows = ShuffledWindows(self.corpus.train, config.batch_size, config.seq_len - 1, stream)
        return MaskedWindows(windows, self.sizes["vocab_size"], numpy_stream(seed, "training masks"))

    def reward_batches(self, seed: int) -> Batches:
        """Return random windows of the training split with random masks."""
        config, stream = self.config, numpy_stream(seed, "reward batches")
        windows = RandomWindows(self.corpus.train, config.batch_size, config.seq_len - 1, stream)
        return MaskedWindows(windows, self.sizes["vocab_size"], numpy_stream(seed, "reward masks"))

    def examples(self, split: Split, most: int) -> Batch:
        """Return windows with the masks of `mask_seed`: `input_ids` (N, T), `positions` and `targets` (N, M)."""
        windows = evaluation_windows(_tokens(self.corpus, split), self.config.seq_len - 1, most)
        return mask_tokens(windows, self.sizes["vocab_size"], numpy_stream(self.config.mask_seed, f"{split} masks"))

    def frequency_perplexity(self, split: Split, most: int) -> float | None:
        """Return that of the token frequencies, on the hidden tokens."""
        return frequency_perplexity(self._log_frequencies, self.examples(split, most)["targets"])


def _open_corpus(config: EnvConfig, seq_len: int, tokenizer: Tokenizer | None = None) -> Corpus:
    corpus = load_corpus(config.dataset, tokenizer or config.tokenizer, config.cache_dir)
    for split in SPLITS:  # too short a text fails here, not hours later
        try:
            evaluation_windows(_tokens(corpus, split), seq_len, 1)
        except ValueError as error:
            raise ValueError(f"the {split} split of {config.dataset!r} is too short: {error}") from error
    return corpus


def _tokens(corpus: Corpus, split: Split) -> TokenArray:
    check_split(split)
    tokens: TokenArray = getattr(corpus, split)
    return tokens


def check_split(split: str) -> None:
    """Check the name of a split.

    Raises:
        ValueError: there is no split of this name.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'train', 'validation' or 'test', got {split!r}")
