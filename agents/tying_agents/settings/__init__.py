"""The settings of every controller. No torch here: command lines are made of them, and `--help` has to be quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tying_agents.settings.looking import ChangeConfig as ChangeConfig
from tying_agents.settings.looking import GatesConfig as GatesConfig
from tying_agents.settings.looking import HalvingConfig as HalvingConfig
from tying_agents.settings.looking import MergeConfig as MergeConfig
from tying_agents.settings.looking import PatientConfig as PatientConfig
from tying_agents.settings.looking import PretrainedConfig as PretrainedConfig
from tying_agents.settings.looking import PriorRule as PriorRule
from tying_agents.settings.looking import ProbeConfig as ProbeConfig
from tying_agents.settings.looking import SearchConfig as SearchConfig
from tying_agents.settings.looking import SplitConfig as SplitConfig
from tying_agents.settings.looking import ThompsonConfig as ThompsonConfig
from tying_agents.settings.looking import TreeConfig as TreeConfig
from tying_env.seeding import check_seed

RewardScale = Literal["none", "running"]
StateScale = Literal["raw", "unit"]
QHead = Literal["full", "low-rank"]

# What the paper's algorithm does not have. A state fits only a controller with the same of these.
OPTIONS = ("replay_size", "replay_batch", "target_every", "double_q", "dueling", "reward_scale", "state_scale")


@dataclass(frozen=True)
class NoSettings:
    """Nothing can be set."""


@dataclass(frozen=True)
class DQNConfig:
    """Settings of the factorized DQN; the defaults are the paper's (Sec. 4).

    Raises:
        ValueError: a setting is outside its range.
    """

    q_learning_rate: float = 1e-3
    """Learning rate of Adam for the Q-network."""
    gamma: float = 0.99
    """Discount of the next state's value."""
    epsilon_start: float = 1.0
    """Probability of a random action at the first decision."""
    epsilon_decay: float = 0.95
    """Factor on epsilon after each decision."""
    epsilon_floor: float = 0.1
    """Epsilon never falls below this."""
    hidden_units: int = 128
    """Units of the Q-network's one hidden layer."""

    replay_size: int = 0
    """Experience replay: learn from samples of this many newest decisions; 0, the paper: from the last alone."""
    replay_batch: int = 32
    """Decisions in such a sample; without replay_size it changes nothing."""
    replay_updates: int = 1
    """Updates after each decision, each on a sample of its own; more than one needs replay_size."""
    exploration_share: float = 0.0
    """Share of all decisions over which epsilon falls to its floor in a straight line; 0, the paper: by epsilon_decay.
    """
    target_every: int = 0
    """Value the next state by a copy of the Q-network that is renewed every this many updates; 0, the paper: none."""
    double_q: bool = False
    """Let the Q-network choose the next action and the copy value it; needs target_every of at least 2."""
    dueling: bool = False
    """Make Q of a value for each layer plus advantages of its choices, less their mean."""
    reward_scale: RewardScale = "none"
    """Rewards as they are, or less their running mean and over their running standard deviation."""
    state_scale: StateScale = "raw"
    """Layer numbers into the Q-network as they are, or divided by L - 1."""
    q_head: QHead = "full"
    """A value out of the Q-network for each choice of each layer, or (low-rank) two vectors for each layer, whose
    products the values are: for many layers."""
    q_rank: int = 8
    """Length of those vectors; with the full head it changes nothing."""

    def __post_init__(self) -> None:
        if not 0 < self.q_learning_rate < float("inf"):
            raise ValueError(f"q_learning_rate must be a finite number above 0, got {self.q_learning_rate!r}")
        for name in ("gamma", "epsilon_start", "epsilon_decay", "epsilon_floor", "exploration_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        if not 1 <= self.hidden_units <= 65_536:
            raise ValueError(f"hidden_units must be from 1 to 65536, got {self.hidden_units!r}")
        least_of = {"replay_size": 0, "replay_batch": 1, "replay_updates": 1, "target_every": 0, "q_rank": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        for name, kind in (("reward_scale", RewardScale), ("state_scale", StateScale), ("q_head", QHead)):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(map(repr, get_args(kind)))
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.replay_updates > 1 and not self.replay_size:
            raise ValueError(
                "replay_updates of more than 1 needs replay_size: without, every update would be on the same decision; "
                f"got replay_updates={self.replay_updates!r}"
            )
        if self.double_q and self.target_every < 2:
            raise ValueError(
                "double_q needs target_every of at least 2: without a copy, or with one renewed at every update, "
                f"choosing and valuing are done by the same network; got target_every={self.target_every!r}"
            )

    @property
    def options(self) -> dict[str, Any]:
        """The settings that the paper's algorithm does not have."""
        # Of the head only where it is another than the paper's: states of before do not know of it.
        head = {} if self.q_head == "full" else {"q_head": self.q_head, "q_rank": self.q_rank}
        return {name: getattr(self, name) for name in OPTIONS} | head


@dataclass(frozen=True)
class RepairedDQNConfig(DQNConfig):
    """Settings of repaired-dqn: the paper's Q-function, learned as tens of decisions with rewards far below 0 allow.

    Raises:
        ValueError: a setting is outside its range.
    """

    q_learning_rate: float = 1e-2
    """Learning rate of Adam for the Q-network."""
    gamma: float = 0.0
    """Discount of the next state's value."""
    exploration_share: float = 0.5
    """Share of all decisions over which epsilon falls to its floor in a straight line; 0: by epsilon_decay."""
    replay_size: int = 1000
    """Experience replay: learn from samples of this many newest decisions; 0: from the last alone."""
    replay_updates: int = 8
    """Updates after each decision, each on a sample of its own; more than one needs replay_size."""
    reward_scale: RewardScale = "running"
    """Rewards as they are, or less their running mean and over their running standard deviation."""
    state_scale: StateScale = "unit"
    """Layer numbers into the Q-network as they are, or divided by L - 1."""


@dataclass(frozen=True)
class GroupsConfig:
    """Settings of random-static, contiguous, cycle, cycle-rev and sequence.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """Number of groups, of each kind of unit; 0 for what chance gives, H_L rounded, and in cycle, cycle-rev and
    sequence half of L."""

    def __post_init__(self) -> None:
        if self.groups < 0:
            raise ValueError(f"groups must be at least 0, got {self.groups}")


@dataclass(frozen=True)
class SharedConfig:
    """Settings of shared-attention and shared-feed-forward.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 1
    """Into how many runs of blocks, of lengths that differ by one at most, what is shared is divided; 1: all share."""
    other_groups: int = 0
    """The same of the other part of the blocks; 0: each has its own."""

    def __post_init__(self) -> None:
        for name, least in (("groups", 1), ("other_groups", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class PriorConfig(GroupsConfig):
    """Settings of prior.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """Number of groups, of each kind of unit; 0 for what chance gives, H_L rounded: 3 of 12 layers, 4 of 24."""
    rule: PriorRule = "own-first"
    """What makes a tying good, beside many groups. own-first: the first layer alone, and equal runs behind it;
    own-last: the last one alone; own-ends: both; contiguous: equal runs of all layers; periodic: layers in turn.
    With one group there is nothing to choose: all layers are tied."""
    max_parameters: int = 0
    """As many groups as this many trainable parameters allow, those outside the blocks included; 0: `groups` says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_parameters < 0:
            raise ValueError(f"max_parameters must be at least 0, got {self.max_parameters}")
        if self.max_parameters and self.groups:
            raise ValueError(
                f"groups or max_parameters says how many groups there are, not both, got groups={self.groups} and "
                f"max_parameters={self.max_parameters}"
            )
        if self.rule not in get_args(PriorRule):
            raise ValueError(f"rule must be one of {', '.join(map(repr, get_args(PriorRule)))}, got {self.rule!r}")


@dataclass(frozen=True)
class RandomRedrawnConfig:
    """Settings of random-redrawn.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """Number of groups of every tying; 0 for what chance gives, H_L rounded."""
    redraw_every: int = 1
    """Decisions after which another random tying is drawn; 0: never."""
    from_start: bool = True
    """The first tying is in force from the first training step on; without, after the frozen start."""

    def __post_init__(self) -> None:
        for name in ("groups", "redraw_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class PeriodicConfig:
    """Settings of periodic."""

    period: int = 3
    """Layers i and i + period are tied."""


@dataclass(frozen=True)
class SandwichConfig:
    """Settings of sandwich."""

    untied_first: int = 1
    """Independent layers before the shared trunk."""
    untied_last: int = 1
    """Independent layers after the shared trunk."""


@dataclass(frozen=True)
class PatternConfig:
    """Settings of pattern."""

    pattern: Path | None = None
    """A text file with the tying, L whole numbers."""


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of replay.

    Raises:
        ValueError: a setting is outside its range.
    """

    trace: Path | None = None
    """The run directory, or trace file, whose tyings are applied again."""
    permute: int | None = None
    """Seed of one fixed permutation of the layers under which they are applied (ablation iii)."""
    final: bool = False
    """Train from scratch with the trace's last tying (ablation ii)."""

    def __post_init__(self) -> None:
        if self.permute is not None:
            check_seed(self.permute)


@dataclass(frozen=True)
class EvolutionConfig:
    """Settings of regularised evolution.

    Raises:
        ValueError: a setting is outside its range.
    """

    population_size: int = 20
    """Tyings that live; the first so many decisions are random."""
    tournament_size: int = 5
    """Of so many drawn from the population the best has the next child: itself with one entry changed."""

    def __post_init__(self) -> None:
        if self.population_size < 2:
            raise ValueError(f"population_size must be at least 2, got {self.population_size!r}")
        if not 1 <= self.tournament_size <= self.population_size:
            raise ValueError(
                f"tournament_size must be from 1 to the population's {self.population_size}, got "
                f"{self.tournament_size!r}"
            )


@dataclass(frozen=True)
class SB3Config:
    """Settings of the Stable-Baselines3 agents; what is not named here is SB3's default.

    Raises:
        ValueError: a setting is outside its range.
    """

    sb3_learning_rate: float | None = None
    """Learning rate; none for the algorithm's own default."""
    sb3_n_steps: int = 10
    """Decisions between two updates of ppo, a2c and maskable-ppo: a run has tens of decisions, not millions."""
    sb3_gamma: float = 0.99
    """Discount."""

    def __post_init__(self) -> None:
        if self.sb3_learning_rate is not None and not 0 < self.sb3_learning_rate < float("inf"):
            raise ValueError(f"sb3_learning_rate must be a finite number above 0, got {self.sb3_learning_rate!r}")
        if self.sb3_n_steps < 2:
            raise ValueError(f"sb3_n_steps must be at least 2, got {self.sb3_n_steps!r}")
        if not 0 <= self.sb3_gamma <= 1:
            raise ValueError(f"sb3_gamma must be in [0, 1], got {self.sb3_gamma!r}")
