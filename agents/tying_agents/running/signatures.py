"""Names signs that the controller of a run has failed, at the end of the run."""

from tying_agents.controllers.base import Controller
from tying_agents.loop import Loop
from tying_agents.registry import find_agent
from tying_env.reports.signatures import DOCS, find_signatures
from tying_env.runs import RunDirectory

# Of a run that was stopped before its end nobody knows what its controller would have come to.
_OVER = ("finished", "diverged")


def failure_notes(loop: Loop, directory: RunDirectory, status: str) -> list[str]:
    """Return a sentence for each sign of failure in the last episode, "name: what was found".

    Args:
        loop: the run.
        directory: has its records.
        status: how the run ended; only one that came to its end is judged.
    """
    if status not in _OVER or loop.config is None:
        return []
    records = [record for record in directory.read_metrics() if record.get("episode") == loop.episode]
    return [str(sign) for sign in find_signatures(records, chooses=chooses(loop.config.agent))]


def say(loop: Loop, notes: list[str]) -> None:
    """Tell the callbacks of the notes, a line each."""
    for note in notes:
        loop.callbacks.note(f"Sign of failure, {note} ({DOCS}).")


def chooses(name: str) -> bool:
    """Return whether an agent decides by what it sees: no fixed pattern, trace, or chance.

    Of code of the user's own, a class that overrides neither `update` nor `needs` cannot see what its tyings lead to.

    Raises:
        As `find_agent`.
    """
    agent = find_agent(name)
    if agent.light:
        return False
    found = agent.load() if agent.foreign else None
    return not (
        isinstance(found, type)
        and issubclass(found, Controller)
        and found.update is Controller.update
        and not found.needs
    )
