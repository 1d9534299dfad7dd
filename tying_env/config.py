"""Settings of the environment: one frozen dataclass, from which the command line is made as well."""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

Model = Literal["gpt2", "bert", "vit", "custom"]
Size = Literal["small", "paper"]


# More than any network has. A number far above it comes from a mistake or a damaged file, and would take all memory.
MAX_LAYERS = 10_000


@dataclass(frozen=True)
class EnvConfig:
    """What is trained, on what, for how long, and how tying behaves.

    The defaults are GPT-2's small preset: its architecture at a size that trains on two CPU cores in minutes, at a
    learning rate tuned on validation (docs/tuning.md). `PRESETS` has those of the other networks, and the paper's.

    Raises:
        ValueError: a setting is outside its range, or says nothing to this network; the message names it, its value
            and what was expected.
    """

    model: Model = "gpt2"
    """The network: GPT-2 (next tokens), BERT (masked tokens), ViT (classes of images), or your own in Python."""
    dataset: str = "sotu"
    """Text: "sotu", a name of the hub (wikitext-2, ...), a folder with train.txt, valid.txt, test.txt, or with one .txt
    file, cut 90/5/5. Images: "digits", "cifar10" of the hub, or a file of packed JPEGs (.npz)."""
    tokenizer: Literal["gpt2", "bytes"] = "gpt2"
    """GPT-2's BPE with 50,257 tokens, or bytes (vocabulary 256: much faster; compare in bits per byte)."""
    mask_seed: int = 0
    """BERT: seed of the masks on validation and test, which are the same at every measurement."""
    patch_size: int = 4
    """ViT: pixels along a side of the squares an image is cut into; it divides the image's."""
    augment: Literal["none", "crop", "crop-flip"] = "none"
    """ViT: training images are shifted by up to an eighth (crop), and mirrored every other time (flip)."""
    cache_dir: str | None = None
    """Folder of the token cache; the default is the user's cache folder or $TYING_ENV_CACHE."""

    init_from: str | None = None
    """Folder of a transformers checkpoint of the same network to start from; without one weights are random."""
    first_tying: Literal["leader", "mean"] = "leader"
    """What the first tying makes of the layers of a group: they take the leader's weights, or the mean of all."""

    n_layer: int = 12
    """L, the number of transformer blocks."""
    n_embd: int = 128
    """Width of the network; a multiple of n_head."""
    n_head: int = 4
    """Attention heads in each block."""
    delta_rank: int = 0
    """Relaxed recursion: each layer has a delta of this rank of its own beside the weights that are tied; 0: none."""
    seq_len: int = 128
    """Text: tokens in a training sequence; also the longest context of the network."""
    dropout: float = 0.1
    """Dropout probability. The paper leaves it open; this is GPT-2's."""

    batch_size: int = 8
    """Sequences, or images, in a training step."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW, constant."""
    weight_decay: float = 0.01
    """Weight decay of AdamW. The paper leaves it open; this is torch's default, which its published code uses."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm. The paper leaves it open; its published code uses 1.0."""
    total_steps: int = 300
    """Training steps in an episode (K of Algorithm 1)."""

    k: int = 5
    """Training steps between two decisions."""
    reward: Literal["perplexity", "accuracy"] = "perplexity"
    """Minus the perplexity, exp(mean loss); or, where there are classes, the share classified correctly."""
    reward_batches: int = 1
    """Fresh random training batches on which the reward is measured."""
    reward_timing: Literal["after_training", "after_tying"] = "after_training"
    """Measure the reward after the k steps, or right after tying as Algorithm 1 lines 20-21 do."""
    gradient: Literal["shared", "leader"] = "shared"
    """A group's gradient: the sum over its layers (the paper's text), or the leader's alone (its published code)."""
    optimizer_state: Literal["inherit", "reset"] = "inherit"
    """AdamW's state of a layer that is untied: a copy of its former leader's, or empty."""
    group_lr: Literal["none", "sqrt", "linear"] = "none"
    """Learning rate of a group of n layers: lr, lr/sqrt(n) or lr/n."""
    replication: Literal["tied", "copied", "aliased"] = "tied"
    """Tie replicated layers; or only copy weights and train on alone (ablation v); or alias as the published code."""
    unequal_blocks: Literal["refuse", "within-kind"] = "refuse"
    """Your own network, if its blocks differ: refuse it, or tie each kind of block within itself; a layer that names
    one of another kind is independent then."""
    freeze_at_start: bool = True
    """Train only layer 0 until the first decision (Algorithm 1 line 2). Without: all layers train (ablation vi)."""

    validate_every: int = 25
    """Training steps between two measurements on the validation split; 0 for none."""
    validation_windows: int = 64
    """Sequences, spread evenly over the split, or images, drawn once for all; 0 for the whole split."""

    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Type of weights, gradients and optimizer state."""
    compile_blocks: bool = False
    """Compile each block with torch.compile; a change of the tying compiles nothing again."""
    checkpoint_blocks: bool = False
    """Keep only the inputs of each block for the backward pass, and compute the rest again there."""
    frozen_weights: Literal["held", "redrawn"] = "held"
    """Hold the layers that the start freezes; or draw their initial values again whenever they compute (same bits; with
    compile_blocks up to rounding)."""
    autocast: bool = False
    """Compute matrix products in bfloat16; weights, gradients and optimizer state stay in dtype."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other; divides batch_size. Memory for fewer sequences."""
    prefetch: bool = False
    """Draw the next batch, and copy it to the GPU, while the present one is computed."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), kind)
        for name in ("n_layer", "n_embd", "n_head", "seq_len", "batch_size", "total_steps", "k", "reward_batches"):
            _check_range(name, getattr(self, name), 1)
        if self.n_layer > MAX_LAYERS:
            raise ValueError(f"n_layer must be at most {MAX_LAYERS}, got {self.n_layer!r}")
        for name in ("validate_every", "validation_windows", "weight_decay", "mask_seed", "patch_size", "delta_rank"):
            _check_range(name, getattr(self, name), 0)
        if not self.dataset.strip():  # as a path it would be the working directory
            raise ValueError(f"dataset must be the name of a data set or a path, got {self.dataset!r}")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout!r}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size, got accumulate={self.accumulate} and batch_size={self.batch_size}"
            )
        if self.frozen_weights == "redrawn" and self.replication != "tied":
            raise ValueError(
                "frozen_weights must be 'held' where the layers of the start go on to train, "
                f"got 'redrawn' with replication={self.replication!r}"
            )
        if self.frozen_weights == "redrawn" and self.model not in _TEXT:
            raise ValueError(
                "frozen_weights must be 'held' where initial values are drawn until they fit, or not by this package: "
                f"got 'redrawn' with the model {self.model!r}"
            )
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head must divide n_embd, got n_head={self.n_head} and n_embd={self.n_embd}")
        for field in dataclasses.fields(self):
            models, value = _ONLY.get(field.name, get_args(Model)), getattr(self, field.name)
            if self.model not in models and value != field.default:
                raise ValueError(
                    f"{field.name} says nothing to the model {self.model!r}, only to {' and '.join(models)}: "
                    f"leave it out, got {value!r}"
                )
        if self.first_tying == "mean" and self.replication != "tied":
            raise ValueError(f"first_tying='mean' needs replication='tied', got {self.replication!r}")
        for name, plain in (("init_from", None), ("delta_rank", 0), ("first_tying", "leader")):
            if self.frozen_weights == "redrawn" and getattr(self, name) != plain:
                raise ValueError(
                    "frozen_weights must be 'held' where a start is more than random matrices, "
                    f"got 'redrawn' with {name}={getattr(self, name)!r}"
                )
        if self.reward == "accuracy" and self.model != "vit":
            raise ValueError(f"reward='accuracy' needs a network that classifies: the model 'vit', got {self.model!r}")

    @property
    def n_units(self) -> int:
        """Length of an action and of a tying: how many units can be tied. Every block is one."""
        return self.n_layer

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """Make a configuration from keywords.

        Raises:
            TypeError: a keyword is unknown; the message names the nearest one.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise TypeError(f"unknown setting {name!r}; {hint}")
        return cls(**settings)


# Settings that only some networks have.
_TEXT: tuple[Model, ...] = ("gpt2", "bert")
_ONLY: dict[str, tuple[Model, ...]] = {
    **dict.fromkeys(("tokenizer", "cache_dir", "seq_len"), _TEXT),
    **dict.fromkeys(("n_embd", "n_head", "dropout"), ("gpt2", "bert", "vit")),
    **dict.fromkeys(("dataset", "init_from", "delta_rank"), ("gpt2", "bert", "vit")),
    "mask_seed": ("bert",),
    "unequal_blocks": ("custom",),
    "patch_size": ("vit",),
    "augment": ("vit",),
}

# These change where and how a network is computed, not what comes of it: a state fits whatever they are.
PLACE_SETTINGS = frozenset({"device", "cache_dir", "compile_blocks", "checkpoint_blocks", "frozen_weights", "prefetch"})

# Paper, Sec. 4: 48 x 1600 with 16 heads, batch 16, learning rate 0.0001, k = 15, 300 epochs; Table 3: sequences of 256.
# An epoch of WikiText-2 is 2,448,382 // (16 * 256) = 597 steps.
PAPER: dict[str, Any] = {
    "dataset": "wikitext-2",
    "n_layer": 48,
    "n_embd": 1600,
    "n_head": 16,
    "seq_len": 256,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "k": 15,
    "total_steps": 300 * 597,
    "validate_every": 600,
    "validation_windows": 0,
    "frozen_weights": "redrawn",  # held, they would be 5.8 GB
}

# Settings by network and size. Small ones train in minutes on two CPU cores at a learning rate tuned on validation
# (docs/tuning.md). The paper's: Sec. 4 and Table 2 for BERT, 12 x 768 x 12; Appendix B for the ViT, 32 layers of about
# 630M parameters in all, which are the 1280 x 16 of ViT-Huge. What it leaves open is as for GPT-2; patches of 4 x 4
# pixels, 64 to an image of CIFAR-10, are our choice. An epoch of CIFAR-10 without its validation images is 2,812 steps.
PRESETS: dict[tuple[Model, Size], dict[str, Any]] = {
    ("gpt2", "small"): {},
    ("gpt2", "paper"): PAPER,
    ("bert", "small"): {"model": "bert", "learning_rate": 3e-4},
    ("bert", "paper"): PAPER | {"model": "bert", "n_layer": 12, "n_embd": 768, "n_head": 12},
    ("vit", "small"): {
        "model": "vit",
        "dataset": "digits",
        "augment": "crop",
        "n_embd": 64,
        "batch_size": 64,
        "learning_rate": 3e-4,
        "total_steps": 600,
        "validation_windows": 0,
    },
    ("vit", "paper"): {
        "model": "vit",
        "dataset": "cifar10",
        "augment": "crop-flip",
        "n_layer": 32,
        "n_embd": 1280,
        "n_head": 16,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "k": 15,
        "total_steps": 300 * 2812,
        "validate_every": 2812,
        "validation_windows": 0,
    },
}


def _check_type(name: str, value: object, kind: Any) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(kind)))}, got {value!r}")
        return
    allowed = get_args(kind) or (kind,)
    if float in allowed:
        allowed = (*allowed, int)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("none" if t is type(None) else t.__name__ for t in get_args(kind) or (kind,))
        raise ValueError(f"{name} must be {names}, got {value!r} ({type(value).__name__})")


def _check_range(name: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
