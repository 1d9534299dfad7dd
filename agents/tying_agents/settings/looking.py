"""Settings of controllers that look before they tie: in trials, or at gradients."""

from dataclasses import dataclass


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
