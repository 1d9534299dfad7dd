"""Settings of controllers that look before they tie: in trials, or at gradients."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

PriorRule = Literal["own-ends", "own-first", "own-last", "contiguous", "periodic"]


@dataclass(frozen=True)
class SearchConfig:
    """Settings of hill-climbing, annealing and tree-search.

    Raises:
        ValueError: a setting is outside its range.
    """

    candidates: int = 2
    """Changes tried at each decision, beside keeping the tying (tree-search: at each level of the tree)."""
    tree_depth: int = 2
    """Decisions that tree-search looks ahead."""
    temperature: float = 0.05
    """Annealing's first temperature, in nats of the log-perplexity."""
    temperature_decay: float = 0.95
    """Factor on the temperature after each decision."""

    def __post_init__(self) -> None:
        for name in ("candidates", "tree_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature!r}")
        if not 0 < self.temperature_decay <= 1:
            raise ValueError(f"temperature_decay must be in (0, 1], got {self.temperature_decay!r}")


@dataclass(frozen=True)
class _AgreementConfig:
    """What the rules have in common that go by the gradients of layers which share weights."""

    groups: int = 0
    """Number of groups at which it stops to split; 0: the threshold alone decides."""
    threshold: float = 0.5
    """A group is split if the gradients of two of its layers have a lower cosine than this."""
    windows: int = 0
    """Sequences (or images) that agreement is measured on; each batch of them costs a training step. 0: one batch."""

    def __post_init__(self) -> None:
        for name in ("groups", "windows"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)!r}")
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold must be a cosine, from -1 to 1, got {self.threshold!r}")


@dataclass(frozen=True)
class SplitConfig(_AgreementConfig):
    """Settings of share-then-split.

    Raises:
        ValueError: a setting is outside its range.
    """

    every: int = 1
    """Decisions between two splits."""
    until: float = 0.5
    """Share of the training steps after which the tying stays."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every!r}")
        if not 0 <= self.until <= 1:
            raise ValueError(f"until must be in [0, 1], got {self.until!r}")


@dataclass(frozen=True)
class ProbeConfig(_AgreementConfig):
    """Settings of probe-then-tie.

    Raises:
        ValueError: a setting is outside its range.
    """

    share: float = 0.1
    """Share of the training steps that go into the trial, in which all layers are tied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), got {self.share!r}")


@dataclass(frozen=True)
class MergeConfig:
    """Settings of merge-alike.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """Number of groups, of each kind of unit, that are left in the end; 0 for what chance gives, H_L rounded."""
    by: Literal["weights", "updates", "gradients", "chance"] = "weights"
    """What tells that layers are alike: cosines between their matrices, between the optimizer's running means of their
    gradients, or between gradients measured anew, which cost a step. By chance any two groups are merged: the
    control."""
    start: float = 0.1
    """Share of the training steps before the first merger."""
    until: float = 0.5
    """Share of the training steps after which the tying stays."""
    windows: int = 0
    """Sequences (or images) that gradients are measured on; each batch of them costs a training step. 0: one batch."""

    def __post_init__(self) -> None:
        for name in ("groups", "windows"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)!r}")
        if self.by not in ("weights", "updates", "gradients", "chance"):
            raise ValueError(f"by must be 'weights', 'updates', 'gradients' or 'chance', got {self.by!r}")
        if not 0 <= self.start <= self.until <= 1:
            raise ValueError(f"start and until must be in order in [0, 1], got {self.start!r} and {self.until!r}")


@dataclass(frozen=True)
class HalvingConfig:
    """Settings of halving.

    Raises:
        ValueError: a setting is outside its range.
    """

    candidates: int = 8
    """Tyings to try."""
    share: float = 0.2
    """Share of the training steps that goes into trials."""
    groups: int = 0
    """Number of groups of every candidate; 0 for what chance gives, H_L rounded."""
    patterns: bool = True
    """The best tyings by the rules of prior are among the candidates; without, all are random."""

    def __post_init__(self) -> None:
        for name, least in (("candidates", 2), ("groups", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), got {self.share!r}")


@dataclass(frozen=True)
class PatientConfig:
    """What searches have in common that change little, and stop.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """The highest number of groups, of each kind of unit; 0 for what chance gives, H_L rounded."""
    begin: PriorRule = "own-first"
    """The pattern that it begins with, of that many groups, as prior's rule."""
    patience: int = 2
    """Decisions of a trial."""
    share: float = 0.1
    """Share of the training steps that trials take. Looks ahead are the further apart the later they come."""
    until: float = 0.667
    """Share of the training steps after which the tying stays."""
    blind: bool = False
    """What trials showed is dealt out at random among them: the control that tells choosing from luck."""

    def __post_init__(self) -> None:
        for name, least in (("groups", 0), ("patience", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), got {self.share!r}")
        if self.begin not in get_args(PriorRule):
            raise ValueError(f"begin must be one of {', '.join(map(repr, get_args(PriorRule)))}, got {self.begin!r}")
        if not 0 <= self.until <= 1:
            raise ValueError(f"until must be in [0, 1], got {self.until!r}")


@dataclass(frozen=True)
class ChangeConfig(PatientConfig):
    """Settings of change-little.

    Raises:
        ValueError: a setting is outside its range.
    """

    candidates: int = 1
    """Moves tried at a look ahead, beside keeping the tying."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, got {self.candidates!r}")


@dataclass(frozen=True)
class TreeConfig(PatientConfig):
    """Settings of mcts.

    Raises:
        ValueError: a setting is outside its range.
    """

    share: float = 0.2
    """Share of the training steps that trials take. Searches are the further apart the later they come."""
    simulations: int = 8
    """Different tyings tried in a search, that in force among them."""
    exploration: float = 1.0
    """Weight of the bonus for what was tried seldom."""
    keep: float = 0.8
    """Prior probability that a unit stays in the group in force; the others share the rest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.simulations < 2:
            raise ValueError(f"simulations must be at least 2, got {self.simulations!r}")
        if not 0 < self.exploration < float("inf"):
            raise ValueError(f"exploration must be a finite number above 0, got {self.exploration!r}")
        if not 0 < self.keep < 1:
            raise ValueError(f"keep must be in (0, 1), got {self.keep!r}")


@dataclass(frozen=True)
class ThompsonConfig(PatientConfig):
    """Settings of thompson.

    Raises:
        ValueError: a setting is outside its range.
    """

    spread: float = 0.01
    """Standard deviation of what tying a pair is thought to cost before anything was tried, nats."""
    noise: float = 0.01
    """Standard deviation of the difference that two trials show, nats."""
    start: Literal["nothing", "table"] = "nothing"
    """What pairs are thought to cost before anything was tried: nothing, or what they do by the tying table."""
    table: Path | None = None
    """Of start: the table's file; the package's by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("nothing", "table"):
            raise ValueError(f"start must be 'nothing' or 'table', got {self.start!r}")
        for name in ("spread", "noise"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a finite number above 0, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class GatesConfig:
    """Settings of gates.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """Number of groups, of each kind of unit; 0 for what chance gives, H_L rounded."""
    share: float = 0.2
    """Share of the training steps in which layers mix each other's weights, in a copy of the network."""
    temperature: float = 0.1
    """Of the gates' softmax in the last of them; it falls from 1 by a factor a step."""
    gate_learning_rate: float = 0.05
    """Learning rate of Adam for the gates."""

    def __post_init__(self) -> None:
        if self.groups < 0:
            raise ValueError(f"groups must be at least 0, got {self.groups!r}")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), got {self.share!r}")
        if not 0 < self.temperature <= 1:
            raise ValueError(f"temperature must be in (0, 1], got {self.temperature!r}")
        if not 0 < self.gate_learning_rate < float("inf"):
            raise ValueError(f"gate_learning_rate must be a finite number above 0, got {self.gate_learning_rate!r}")


@dataclass(frozen=True)
class PretrainedConfig:
    """Settings of pretrained-dqn.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """The highest number of groups, of each kind of unit; 0 for what chance gives, H_L rounded."""
    begin: PriorRule = "own-first"
    """The pattern that its moves begin with, of that many groups, as prior's rule."""
    values: Path | None = None
    """What it learned, a file of `layer-tying pretrain`; the package's by default."""

    def __post_init__(self) -> None:
        if self.groups < 0:
            raise ValueError(f"groups must be at least 0, got {self.groups!r}")
        if self.begin not in get_args(PriorRule):
            raise ValueError(f"begin must be one of {', '.join(map(repr, get_args(PriorRule)))}, got {self.begin!r}")
