"""What a decoder of transformers trains on: text, in the tokens of its checkpoint or of this package."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tying_env.config import EnvConfig
from tying_env.data import Corpus, Tokenizer, load_tokenizer
from tying_env.data.checkpoint_tokenizer import CheckpointTokenizer, load_checkpoint_tokenizer, tolerance
from tying_env.data.corpus import Split, open_source
from tying_env.primary.checkpoint import TOKENIZER, checkpoint_architecture
from tying_env.primary.decoders import end_token, longest_context, vocabulary_size
from tying_env.primary.models import Sizes
from tying_env.primary.tasks import DecoderLM
from tying_env.primary.workloads import CausalText

_log = logging.getLogger("tying_env")


class DecoderText(CausalText):
    """A decoder of transformers that predicts the next token; it starts from a checkpoint.

    Args:
        config: the settings.
        sizes: of a network that is there already: the checkpoint is not read then.
        tokenizer: of the same.

    Raises:
        FileNotFoundError: the checkpoint, or its tokenizer.json, is not there.
        ValueError: the settings do not suit the network; the message says which.
    """

    def __init__(self, config: EnvConfig, sizes: Sizes | None = None, tokenizer: Tokenizer | None = None) -> None:
        if config.init_from is None:
            raise ValueError("the model 'causal-lm' starts from a checkpoint: init_from must name its folder, got None")
        where = f"the configuration of {config.init_from}"
        architecture = checkpoint_architecture(config) if sizes is None else sizes["architecture"]
        if tokenizer is None:
            folder = Path(config.init_from).expanduser()
            tokenizer = decoder_tokenizer(config.tokenizer, folder / TOKENIZER, architecture)
        vocabulary, longest = vocabulary_size(architecture, where), longest_context(architecture)
        if tokenizer.vocab_size > vocabulary:
            raise ValueError(
                f"the tokenizer {config.tokenizer!r} has {tokenizer.vocab_size} tokens, the network embeddings for "
                f"{vocabulary}: choose tokenizer='checkpoint'{', or bytes' if vocabulary >= 256 else ''}"
            )
        if longest is not None and config.seq_len > longest:
            raise ValueError(f"seq_len must be at most {longest}, what the network was made for, got {config.seq_len}")
        super().__init__(config, tokenizer)
        self.task = DecoderLM()
        self.sizes = {"vocab_size": vocabulary, "architecture": architecture, "tokenizer": tokenizer.identity}
        self._no_bytes = tokenizer.no_bytes or _mismatch(self.corpus)
        if self._no_bytes is not None:
            self.byte_lengths = None
            _log.info("Bits per byte are not measured: %s", self._no_bytes)
        network = self.skeleton()
        if len(network.blocks) != config.n_layer:
            raise ValueError(
                f"{where} says {config.n_layer} layers, and {len(network.blocks)} blocks were found in "
                f"{', '.join(network.blocks_paths)}: only decoders of one stack can be tied"
            )
        self._find_kinds(network)

    def describe(self) -> dict[str, Any]:
        """Return hash and size of the text; and why there are no bits per byte, None where there are."""
        return {**super().describe(), "no_bits_per_byte": self._no_bytes}

    def files(self) -> dict[str, bytes]:
        """Return the checkpoint's tokenizer, where it is the one that is used."""
        tokenizer = self.corpus.tokenizer
        return {TOKENIZER: tokenizer.file} if isinstance(tokenizer, CheckpointTokenizer) else {}


def decoder_tokenizer(name: str, file: Path, architecture: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that a decoder reads.

    Args:
        name: the setting.
        file: the checkpoint's tokenizer.json.
        architecture: of the network, which says how a text ends.

    Raises:
        FileNotFoundError, ValueError: it cannot be had, or is damaged.
    """
    return load_checkpoint_tokenizer(file, end_token(architecture)) if name == "checkpoint" else load_tokenizer(name)


def _mismatch(corpus: Corpus) -> str | None:
    """Return in what the tokens that results are measured on stand for other bytes than their text has, if they do."""
    lengths = corpus.tokenizer.byte_lengths
    if lengths is None or not isinstance(corpus.tokenizer, CheckpointTokenizer):
        return None
    source = open_source(corpus.name)
    measured: tuple[tuple[Split, Any], ...] = (("validation", corpus.validation), ("test", corpus.test))
    for split, tokens in measured:
        sizes = [len(text.encode()) for text in source.texts(split)]
        found, there = int(lengths[tokens].sum()), sum(sizes)
        if not there <= found <= there + tolerance(sizes):
            return f"the tokens of the {split} split stand for {found} bytes, the text has {there}"
    return None
