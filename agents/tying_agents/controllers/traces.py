"""Traces: which tying was in force when, as text that a person can read and `diff` can compare.

    # tying trace, 12 layers
    start frozen
    5 0 0 2 3 0 0 1 0 0 0 2 0
    10 0 0 0 3 0 0 1 0 3 0 0 0
    end 15

The first number of a line is the training step at which the tying was applied, the others are the tying. A decision
comes every k training steps, with the frozen start the first one after k; so it does where nothing is frozen there
("start independent"). The last line says at which training step the
run ended; the trace of a run that was stopped has none, and that of a run that was made longer has one in its midst for
each time that it had ended. Where decisions have other numbers of training steps than k, the first line says so: "#
tying trace, 12 layers, varied intervals". Where units are of several kinds it names the lowest unit of each one's kind:
"# tying trace, 4 units of kinds 0 0 2 2". A run of several episodes has all this once for each, and the last is what is
replayed: the run's networks and results are of the last episode, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tying_agents.controllers.base import Context, Controller
from tying_agents.controllers.fixed import FixedController
from tying_agents.settings import ReplayConfig
from tying_env import partition
from tying_env.kinds import Kinds
from tying_env.partition import IntVector
from tying_env.seeding import numpy_stream

TRACE = "trace.txt"
_HEADER = "# tying trace, "
_VARIED = ", varied intervals"
_LAYERS, _KINDS = " layers", " units of kinds "
_INDEPENDENT = "independent"  # in k steps before the first decision, without the frozen start


@dataclass(frozen=True)
class Trace:
    """What a run applied in its last episode.

    Attributes:
        kinds: of its L units, without names.
        start: the tying it began with, shape (L,); None for the k steps before the first decision, with all layers but
            one frozen or with none.
        tyings: one per decision, shape (L,) each.
        k: training steps between two decisions; None where a single decision does not tell, or they are varied.
        whole: whether the episode came to its end. Without, its run was stopped, or the file was cut off.
        varied: whether decisions had other numbers of training steps than k.
    """

    kinds: Kinds
    start: IntVector | None
    tyings: Sequence[IntVector]
    k: int | None
    whole: bool
    varied: bool = False


def header(kinds: Kinds, start: IntVector | None, frozen: bool = True, varied: bool = False) -> str:
    """Return the first two lines of a trace.

    Args:
        kinds: of the L units.
        start: the tying that the episode began with, shape (L,); None: as the environment begins.
        frozen: whether it then begins with all layers but one frozen.
        varied: whether decisions have other numbers of training steps than k.
    """
    begin = ("frozen" if frozen else _INDEPENDENT) if start is None else " ".join(map(str, start.tolist()))
    units = f"{_KINDS}{' '.join(map(str, kinds.lowest.tolist()))}" if len(kinds.members) > 1 else _LAYERS
    return f"{_HEADER}{kinds.n_units}{units}{_VARIED if varied else ''}\nstart {begin}\n"


def line(train_step: int, tying: IntVector) -> str:
    """Return the line of a tying applied after `train_step` training steps."""
    return f"{train_step} {' '.join(map(str, tying.tolist()))}\n"


def end(train_step: int) -> str:
    """Return the last line of a trace, of an episode that ended after so many training steps."""
    return f"end {train_step}\n"


def read_trace(path: Path) -> Trace:
    """Read the trace of a run directory, or a trace file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged; the message names the file, the line and what is wrong.
    """
    file = path / TRACE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no trace at {file}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a tying trace: it is not UTF-8 text ({error})") from error
    lines = text.splitlines()
    first = [number for number, line in enumerate(lines, 1) if line.startswith(_HEADER)]
    if not first or first[0] != 1:
        raise ValueError(f"{file} is not a tying trace: it must begin with '{_HEADER}N layers' and 'start ...'")
    if not text.endswith("\n"):
        raise ValueError(f"{file} line {len(lines)} is damaged: it is cut off, {lines[-1]!r} has no line end")
    after = [*first[1:], len(lines) + 1]
    episodes = [_episode(lines[begin - 1 : end - 1], file, begin) for begin, end in zip(first, after, strict=True)]
    return episodes[-1]


def _episode(lines: Sequence[str], file: Path, number: int) -> Trace:
    """Read the lines of one episode; the first of them has this number in the file."""

    def damaged(offset: int, why: str) -> ValueError:
        return ValueError(f"{file} line {number + offset} is damaged: {why}")

    varied = lines[0].endswith(_VARIED)
    kinds = _kinds(lines[0].removeprefix(_HEADER).removesuffix(_VARIED))
    if kinds is None:
        raise ValueError(
            f"{file} line {number} must read '{_HEADER}N layers' or '{_HEADER}N units of kinds ...', got {lines[0]!r}"
        )
    n_units = kinds.n_units
    if len(lines) < 2 or not lines[1].startswith("start "):
        raise damaged(1, f"it must read 'start frozen', 'start {_INDEPENDENT}' or 'start' and a tying")
    begin = lines[1].removeprefix("start ")
    start = None if begin in ("frozen", _INDEPENDENT) else _tying(begin.split(), n_units, file, number + 1)
    whole = lines[-1].startswith("end ")
    within = list(enumerate(lines[2:-1] if whole else lines[2:], 2))
    # Where a run had ended before it was made longer, it goes on.
    decisions = [(offset, line) for offset, line in within if not line.startswith("end ")]
    for offset, line in within:
        following = lines[offset + 1].split() if offset + 1 < len(lines) else []
        if line.startswith("end ") and line.split()[1:] != following[:1]:
            raise damaged(offset, f"{line!r} is not the last line, and what follows does not begin there")
    if not decisions:
        raise ValueError(f"{file} holds no decision" + ("" if number == 1 else f" of the episode in line {number}"))
    steps, tyings = [], []
    for offset, line in decisions:
        step, *words = line.split() or [""]
        if not step.isdecimal():
            raise damaged(offset, f"it must begin with a training step, got {step!r}")
        steps.append(int(step))
        tyings.append(_tying(words, n_units, file, number + offset))
    # Decisions are k training steps apart, and so is the first one from the frozen start: gaps are missing lines.
    k = steps[1] - steps[0] if len(steps) > 1 and not varied else None
    expected = 0 if start is not None else steps[0] if k is None else k
    for (offset, _), found in zip(decisions[:1] if varied else decisions, steps, strict=not varied):
        if found != expected:
            raise damaged(offset, f"training step {found} where {expected} is due; lines are missing or out of order")
        expected += k or 0
    for (offset, _), before, after in zip(decisions[1:], steps, steps[1:], strict=False):
        if after <= before:
            raise damaged(offset, f"training step {after} follows {before}; steps must rise")
    if whole:
        last = lines[-1].removeprefix("end ")
        if not last.isdecimal() or not steps[-1] <= int(last) <= steps[-1] + (k or int(last)):
            raise damaged(len(lines) - 1, f"{lines[-1]!r} does not follow training step {steps[-1]}")
    return Trace(kinds, start, tyings, k, whole, varied)


def _kinds(words: str) -> Kinds | None:
    """Read the kinds of "N layers" or "N units of kinds ..."; None where it is neither."""
    layers = words.removesuffix(_LAYERS)
    if layers != words:
        return Kinds.alike(int(layers)) if layers.isdecimal() and int(layers) else None
    number, _, lowest = words.partition(_KINDS)
    try:
        kinds = Kinds([int(word) for word in lowest.split()])
    except ValueError:
        return None
    return kinds if number == str(kinds.n_units) else None


def _tying(words: list[str], n_units: int, file: Path, number: int) -> IntVector:
    try:
        tying = partition.validate_action([int(word) for word in words], n_units)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} line {number} is damaged: {error}") from error
    if not partition.is_tying(tying):
        raise ValueError(f"{file} line {number} is damaged: {tying.tolist()} is not a tying in canonical form")
    return tying


class ReplayController(Controller):
    """Applies a recorded trace, decision by decision (paper, ablation iv); after its end, its last tying.

    Args:
        trace: what to replay.
        kinds: of the environment's units.
        order: a permutation of the layers, shape (L,): layer `order[i]` does what layer i did (ablation iii).

    Raises:
        ValueError: the trace is of another number of units, or of others.
    """

    def __init__(self, trace: Trace, kinds: Kinds, order: IntVector | None = None) -> None:
        if not np.array_equal(trace.kinds.lowest, kinds.lowest):
            raise ValueError(f"the trace is of {_in_words(trace.kinds)}, the environment has {_in_words(kinds)}")
        order = np.arange(kinds.n_units) if order is None else order

        def action(tying: IntVector) -> IntVector:
            return kinds.action_for(partition.permute(tying, order))

        self._start = None if trace.start is None else action(trace.start)
        self._tyings = [action(tying) for tying in trace.tyings]
        self._next = 0
        self._whole = trace.whole

    def notes(self) -> list[str]:
        """Say if the trace has no end."""
        if self._whole:
            return []
        return [
            f"The trace stops after {len(self._tyings)} decisions without its end: its run was stopped, or the file "
            "was cut off. The last tying is kept from there on."
        ]

    def begin(self) -> None:
        """Go back to the first decision."""
        self._next = 0

    def initial_tying(self) -> IntVector | None:
        """Return what the recorded run began with."""
        return self._start

    def act(self, observation: IntVector) -> IntVector:
        """Return the next tying of the trace."""
        tying = self._tyings[min(self._next, len(self._tyings) - 1)]
        self._next += 1
        return tying.copy()

    @property
    def last(self) -> IntVector:
        """The action of the last decision, shape (L,)."""
        return self._tyings[-1].copy()

    def state_dict(self) -> dict[str, int]:
        """Return the position in the trace."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position in the trace."""
        self._next = state["next"]


def _in_words(kinds: Kinds) -> str:
    if len(kinds.members) == 1:
        return f"{kinds.n_units}{_LAYERS}"
    return f"{kinds.n_units} units of {len(kinds.members)} kinds (lowest of each one's: {kinds.lowest.tolist()})"


def make_replay(settings: ReplayConfig, context: Context) -> Controller:
    """Return a controller that applies a recorded trace again, or its last tying throughout.

    Raises:
        ValueError: no trace is named, it is damaged, of another number of layers, or its decisions lie k' steps apart,
            or have varied numbers of training steps.
        FileNotFoundError: it is not there.
    """
    if settings.trace is None:
        raise ValueError("the agent 'replay' needs --trace RUN, a run directory or a trace file")
    kinds, order = context.kinds, None
    if settings.permute is not None:
        rng, order = numpy_stream(settings.permute, "permutation"), np.empty(kinds.n_units, dtype=np.int64)
        for units in kinds.members:  # each kind within itself
            order[units] = rng.permutation(units)
    trace = read_trace(settings.trace)
    controller = ReplayController(trace, kinds, order)  # checks the number of layers
    if settings.final:
        return FixedController(controller.last, kinds)
    if trace.varied or context.varied:
        whose = f"the trace {settings.trace}" if trace.varied else "this run"
        raise ValueError(
            f"the decisions of {whose} have varied numbers of training steps, and a trace is replayed at its own: "
            "replay its last tying, with --final"
        )
    if context.k is not None and trace.k not in (None, context.k):
        raise ValueError(
            f"the trace {settings.trace} has a decision every {trace.k} training steps, this run every {context.k}: "
            f"replay it with --k {trace.k}, or its last tying with --final"
        )
    return controller
