"""What the environment trains: a network, the data it learns from, and its task, bundled.

The environment itself does not know whether a language model or an image classifier is under it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tying_env.config import EnvConfig
from tying_env.data import (
    Batch,
    Batches,
    Corpus,
    ImageSet,
    MaskedWindows,
    RandomExamples,
    RandomWindows,
    ShuffledExamples,
    ShuffledWindows,
    evaluation_windows,
    load_corpus,
    load_images,
    mask_tokens,
)
from tying_env.data.batches import count_examples, cut, sample
from tying_env.data.corpus import SPLITS, Split
from tying_env.data.examples import augment_images
from tying_env.primary.building import build_network
from tying_env.primary.checkpoint import check_checkpoint, load_checkpoint
from tying_env.primary.evaluation import Evaluation, evaluate, measure, perplexity
from tying_env.primary.models import PrimaryNetwork, Sizes
from tying_env.primary.tasks import CausalLM, ImageClassification, MaskedLM, Task
from tying_env.seeding import numpy_stream, torch_randomness_from
from tying_env.slots import check_kinds, find_kinds


class Workload(ABC):
    """A network to train, and all it takes.

    Attributes:
        config: the settings of the environment.
        task: turns a batch into a loss.
        sizes: what the network has to know of its data, enough to build it again without them.
        classifies: whether accuracy is measured.
        kinds: for each block the lowest one of its kind, (L,); None where all are alike.
    """

    config: EnvConfig
    task: Task
    sizes: Sizes
    classifies = False
    kinds: npt.NDArray[np.int64] | None = None

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

    def evaluate(self, model: nn.Module, split: Split, most: int, device: torch.device) -> Evaluation:
        """Measure a network on `device` on up to `most` examples of a split, without dropout."""
        examples = self.examples(split, most)
        batches = map(self._prepared, cut(examples, self.config.batch_size))
        loss, accuracy = measure(model, self.task, batches, device)
        return Evaluation(loss, perplexity(loss), None, self._predictions(examples), accuracy)

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what identifies the data, ready for JSON: what a run writes into its config.json."""

    def _find_kinds(self, network: PrimaryNetwork) -> None:
        """Find the kinds of block, or check that there is one only.

        Raises:
            ValueError: there are several, and the settings do not allow for that.
        """
        blocks = network.blocks
        if self.config.unequal_blocks == "within-kind":
            self.kinds = find_kinds(blocks, network.lists, self.config.tied_parameters)
        try:
            kinds = np.zeros(len(blocks), dtype=np.int64) if self.kinds is None else self.kinds
            check_kinds(blocks, kinds, self.config.tied_parameters)
        except ValueError as error:
            if self.kinds is not None or "same names" not in str(error):
                raise
            raise ValueError(f"{error}; unequal_blocks='within-kind' ties each with those of its kind") from error

    def _prepared(self, batch: Batch) -> Batch:
        """Return examples as the task takes them."""
        return batch

    def _predictions(self, examples: Batch) -> int:
        """Return how many predictions a network makes for these examples."""
        return count_examples(examples)


def open_workload(config: EnvConfig) -> Workload:
    """Load the data that `config` names.

    Raises:
        ValueError: unknown data, or data that do not suit the network; the message says what.
        FileNotFoundError, ImportError, ConnectionError, OSError: the data cannot be had.
    """
    if config.init_from is not None:
        check_checkpoint(config)
    match config.model:
        case "gpt2":
            return CausalText(config)
        case "bert":
            return MaskedText(config)
        case "vit":
            return Images(config)
    raise ValueError("the model 'custom' is a network of your own: LayerTyingEnv(model=my_model, batches=...)")


class CausalText(Workload):
    """A GPT-2 that predicts the next token."""

    def __init__(self, config: EnvConfig) -> None:
        self.config = config
        self.task = CausalLM()
        self.corpus = _open_corpus(config, config.seq_len)
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
        windows, lengths = self.examples(split, most), self.corpus.tokenizer.byte_lengths
        return evaluate(model, self.task, windows, self.config.batch_size, device, lengths)

    def describe(self) -> dict[str, Any]:
        """Return hash and size of the text."""
        return _describe_corpus(self.corpus)


class MaskedText(Workload):
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

    def describe(self) -> dict[str, Any]:
        """Return hash and size of the text."""
        return _describe_corpus(self.corpus)

    def _predictions(self, examples: Batch) -> int:
        return int(examples["targets"].size)


class Images(Workload):
    """A ViT that names the class of an image."""

    classifies = True

    def __init__(self, config: EnvConfig) -> None:
        self.config = config
        self.data: ImageSet = load_images(config.dataset)
        channels, height, width = self.data.shape
        side = config.patch_size
        if side < 1 or height % side or width % side:
            raise ValueError(f"patch_size must divide the images' {height} x {width} pixels, got {side}")
        self.task = ImageClassification(height // side * (width // side))
        self.sizes = {"channels": channels, "height": height, "width": width, "classes": len(self.data.classes)}
        self._mean, self._deviation = self.data.scale()  # (C, 1, 1) each

    def training_batches(self, seed: int) -> Batches:
        """Return the training images in random order, augmented as the settings say; epoch after epoch."""
        stream = numpy_stream(seed, "training batches")
        return ShuffledExamples(self._all("train"), self.config.batch_size, stream, self._augmented)

    def reward_batches(self, seed: int) -> Batches:
        """Return random training images, as they are."""
        stream = numpy_stream(seed, "reward batches")
        return RandomExamples(self._all("train"), self.config.batch_size, stream, self._plain)

    def examples(self, split: Split, most: int) -> Batch:
        """Return images as they are stored: `pixel_values` (N, C, H, W) uint8, `labels` (N,)."""
        everything = self._all(split)
        places = sample(len(everything["labels"]), most)
        return {name: part[places] for name, part in everything.items()}

    def describe(self) -> dict[str, Any]:
        """Return the hash of images and labels, their number, size and classes, and what pixels are scaled by."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for part in (self.data.images[split], self.data.labels[split]):
                digest.update(np.ascontiguousarray(part).tobytes())
        return {
            "content_key": digest.hexdigest(),
            **{split: len(self.data.labels[split]) for split in SPLITS},
            "shape": list(self.data.shape),
            "classes": list(self.data.classes),
            "pixel_mean": self._mean.ravel().tolist(),  # (C,)
            "pixel_deviation": self._deviation.ravel().tolist(),  # (C,)
        }

    def _all(self, split: Split) -> dict[str, npt.NDArray[Any]]:
        _check_split(split)
        return {"pixel_values": self.data.images[split], "labels": self.data.labels[split]}

    def _prepared(self, batch: Batch) -> Batch:
        """Return a batch whose training pixels would have mean 0 and standard deviation 1 in every channel."""
        return {**batch, "pixel_values": (batch["pixel_values"].astype(np.float32) - self._mean) / self._deviation}

    def _plain(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return self._prepared(batch)

    def _augmented(self, batch: Batch, rng: np.random.Generator) -> Batch:
        prepared = self._prepared(batch)
        augment = self.config.augment
        return prepared if augment == "none" else augment_images(prepared, rng, flip=augment == "crop-flip")


def _open_corpus(config: EnvConfig, seq_len: int) -> Corpus:
    corpus = load_corpus(config.dataset, config.tokenizer, config.cache_dir)
    for split in SPLITS:  # too short a text fails here, not hours later
        try:
            evaluation_windows(_tokens(corpus, split), seq_len, 1)
        except ValueError as error:
            raise ValueError(f"the {split} split of {config.dataset!r} is too short: {error}") from error
    return corpus


def _tokens(corpus: Corpus, split: Split) -> npt.NDArray[np.uint16]:
    _check_split(split)
    tokens: npt.NDArray[np.uint16] = getattr(corpus, split)
    return tokens


def _describe_corpus(corpus: Corpus) -> dict[str, Any]:
    return {"content_key": corpus.folder.name, **{split: len(_tokens(corpus, split)) for split in SPLITS}}


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be 'train', 'validation' or 'test', got {split!r}")
