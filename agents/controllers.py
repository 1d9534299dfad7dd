"""The agents by name, and the settings that some of them take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from agents.base import Controller
from agents.baselines import PATTERNS, FixedController, RandomController, periodic, read_pattern, sandwich
from agents.factorized_dqn import DQNConfig, FactorizedDQN
from agents.published_dqn import LayerSweepDQN
from agents.search import Annealing, HillClimbing, SearchConfig, TreeSearch
from agents.traces import ReplayController, read_trace
from tying_env import partition
from tying_env.seeding import check_seed, numpy_stream, torch_stream

ControllerName = Literal[
    "dqn",
    "layer-sweep-dqn",
    "random",
    "random-static",
    "conventional",
    "albert",
    "cycle",
    "cycle-rev",
    "sequence",
    "periodic",
    "sandwich",
    "pattern",
    "hill-climbing",
    "annealing",
    "tree-search",
    "replay",
]


@dataclass(frozen=True)
class PatternConfig:
    """Settings of the agents that apply one tying throughout, and of replay.

    Raises:
        ValueError: a setting is outside its range.
    """

    groups: int = 0
    """random-static: number of groups of the one random tying; 0 for what chance gives, H_L rounded."""
    period: int = 3
    """periodic: layers i and i + period are tied."""
    untied_first: int = 1
    """sandwich: independent layers before the shared trunk."""
    untied_last: int = 1
    """sandwich: independent layers after the shared trunk."""
    pattern: Path | None = None
    """pattern: a text file with the tying, L whole numbers."""
    trace: Path | None = None
    """replay: the run directory, or trace file, whose tyings are applied again."""
    permute: int | None = None
    """replay: seed of one fixed permutation of the layers under which they are applied (ablation iii)."""
    final: bool = False
    """replay: train from scratch with the trace's last tying (ablation ii)."""

    def __post_init__(self) -> None:
        if self.groups < 0:
            raise ValueError(f"groups must be at least 0, got {self.groups}")
        if self.permute is not None:
            check_seed(self.permute)


def make_controller(
    agent: ControllerName,
    n_units: int,
    seed: int,
    dqn: DQNConfig | None = None,
    search: SearchConfig | None = None,
    pattern: PatternConfig | None = None,
    k: int | None = None,
) -> Controller:
    """Return a new controller whose random streams come from `seed`.

    Args:
        agent: which one.
        n_units: L.
        seed: of its exploration and of its network's initial weights.
        dqn: settings of dqn and layer-sweep-dqn; the paper's by default.
        search: settings of hill-climbing, annealing and tree-search.
        pattern: settings of the agents with one tying, and of replay.
        k: training steps between two decisions, which a trace must share; None where there is no trace.

    Raises:
        ValueError: unknown agent, a setting that does not suit L layers, a damaged trace or pattern file.
        FileNotFoundError: a trace or pattern file is not there.
    """
    exploration = numpy_stream(seed, "controller")
    dqn, search, pattern = dqn or DQNConfig(), search or SearchConfig(), pattern or PatternConfig()
    match agent:
        case "dqn":
            return FactorizedDQN(n_units, dqn, exploration, torch_stream(seed, "controller weights"))
        case "layer-sweep-dqn":
            return LayerSweepDQN(n_units, dqn, exploration, torch_stream(seed, "controller weights"))
        case "random":
            return RandomController(n_units, exploration)
        case "random-static":
            groups = pattern.groups or round(partition.chance_independent_layers(n_units)[0])
            return FixedController(partition.random_tying(n_units, groups, exploration))
        case "conventional" | "albert" | "cycle" | "cycle-rev" | "sequence":
            return FixedController(PATTERNS[agent](n_units))
        case "periodic":
            return FixedController(periodic(n_units, pattern.period))
        case "sandwich":
            return FixedController(sandwich(n_units, pattern.untied_first, pattern.untied_last))
        case "pattern":
            if pattern.pattern is None:
                raise ValueError("the agent 'pattern' needs --pattern FILE, a text file with the tying")
            return FixedController(read_pattern(pattern.pattern, n_units))
        case "hill-climbing":
            return HillClimbing(n_units, search, exploration)
        case "annealing":
            return Annealing(n_units, search, exploration)
        case "tree-search":
            return TreeSearch(n_units, search, exploration)
        case "replay":
            return _replay(n_units, pattern, k)
    raise ValueError(f"agent must be one of {', '.join(get_args(ControllerName))}, got {agent!r}")


def _replay(n_units: int, pattern: PatternConfig, k: int | None) -> Controller:
    if pattern.trace is None:
        raise ValueError("the agent 'replay' needs --trace RUN, a run directory or a trace file")
    order = None if pattern.permute is None else numpy_stream(pattern.permute, "permutation").permutation(n_units)
    trace = read_trace(pattern.trace)
    controller = ReplayController(trace, n_units, order)  # checks the number of layers
    if k is not None and trace.k not in (None, k) and not pattern.final:
        raise ValueError(
            f"the trace {pattern.trace} has a decision every {trace.k} training steps, this run every {k}: "
            f"replay it with --k {trace.k}, or its last tying with --final"
        )
    if pattern.final:
        last = trace.tyings[-1]
        return FixedController(last if order is None else partition.permute(last, order))
    return controller
