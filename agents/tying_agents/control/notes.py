"""What the positive control says of the controllers in a comparison, in sentences for its report."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tying_agents.control.arms import ARMS
from tying_agents.control.table import Cell, shipped_cells
from tying_agents.registry import find_agent
from tying_env.plugins import is_import_string
from tying_env.reports.arms import Arm
from tying_env.reports.comparison import Comparison


def with_control(comparison: Comparison) -> Comparison:
    """Return a comparison with a note for each controller: its decisions, and what so many are good for."""
    notes = [control_note(summary.arm, shipped_cells()) for summary in comparison.arms]
    return dataclasses.replace(comparison, notes=(*comparison.notes, *filter(None, notes)))


def control_note(arm: Arm, cells: Sequence[Cell]) -> str | None:
    """Return what the control says of an arm's controller; None of one that learns nothing, as a fixed pattern.

    Args:
        arm: of the comparison.
        cells: of the control's table.
    """
    runs = [run for run in arm.runs if run.records]
    if not runs or _learns_nothing(str(runs[0].config["agent"])):
        return None
    made = sorted({int(run.last["decision"]) for run in runs})
    had = f"{arm.label} made {made[0]}{f' to {made[-1]}' if len(made) > 1 else ''} decisions"
    if changed := [name for key in ("rewards", "wrappers") for name in runs[0].config.get(key) or ()]:
        return f"{had}. The positive control says nothing of it: there no controller has {' and '.join(changed)}."
    name = _name_in_control(runs[0].config)
    known = [cell for cell in cells if cell.arm == name and cell.noise == 0 and cell.kind != "independent"]
    if not known:
        return f"{had}. The positive control has no such controller: layer-tying control tries it."
    reached = [cell.decisions for cell in known if cell.decisions <= made[0]]
    if not reached:
        least = min(cell.decisions for cell in known)
        return f"{had}, fewer than the least that the positive control looks at, {least}."
    mark, n_units = max(reached), len(runs[0].last["tying"])
    at_mark = [cell for cell in known if cell.decisions == mark]
    nearest = min({cell.n_layer for cell in at_mark}, key=lambda n: abs(math.log(n / n_units)))
    shares = [f"{round(100 * cell.share)}% on {cell.kind} tasks" for cell in at_mark if cell.n_layer == nearest]
    # Who explores less towards the end of a run is elsewhere after as many decisions of a longer one.
    when = f"In a run of {mark}" if name is not None and ARMS[name].goes_by_length else f"After {mark}"
    return (
        f"{had}. {when} it gets, where the best tying of {nearest} layers is known and rewards have no noise "
        f"(the positive control), {' and '.join(shares)} of what there is to gain over chance."
    )


def _learns_nothing(agent: str) -> bool:
    return not is_import_string(agent) and find_agent(agent).light


def _name_in_control(config: dict[str, Any]) -> str | None:
    """Return the arm of the control with the agent and the settings of a run."""
    given = config.get("controller") or {}
    for arm in ARMS.values():
        if arm.agent == config["agent"]:
            own = dataclasses.asdict(arm.chosen)
            defaults = dataclasses.asdict(arm.found.settings())  # what a run of an earlier version does not say
            if defaults | given == own:
                return arm.name
    return None
