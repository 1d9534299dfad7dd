"""Names signs that the controller of a run has failed, at the end of the run."""

from tying_agents.loop import Loop
from tying_env.reports.signatures import DOCS, find_signatures
from tying_env.runs import RunDirectory

# Of a run that was stopped before its end nobody knows what its controller would have come to.
_OVER = ("finished", "diverged")


def failure_notes(loop: Loop, directory: RunDirectory, status: str, chooses: bool) -> list[str]:
    """Return a sentence for each sign of failure in the last episode, "name: what was found".

    Args:
        loop: the run.
        directory: has its records.
        status: how the run ended; only one that came to its end is judged.
        chooses: whether who ties decides by what it sees; see `find_signatures`.
    """
    if status not in _OVER:
        return []
    records = [record for record in directory.read_metrics() if record.get("episode") == loop.episode]
    return [str(sign) for sign in find_signatures(records, chooses=chooses, kinds=loop.inner.kinds)]


def say(loop: Loop, notes: list[str]) -> None:
    """Tell the callbacks of the notes, a line each."""
    for note in notes:
        loop.callbacks.note(f"Sign of failure, {note} ({DOCS}).")
