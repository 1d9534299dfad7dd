"""What stands in for bringing files to the disk: small runs wait for that nearly as long as they train."""

import os
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event


@event.listens_for(Engine, "connect")
def _commit_without_waiting(connection: Any, record: object) -> None:
    """Let SQLite hand what it commits to the system, and not wait until it is on the disk."""
    if type(connection).__module__ == "sqlite3":
        connection.execute("PRAGMA synchronous = OFF")


def leave_out_waiting(put: Callable[[object, str, object], object]) -> None:
    """Let nothing wait for the disk. A process that is killed loses nothing that it has written.

    A descriptor that is not open is refused as before.

    Args:
        put: setattr, or a MonkeyPatch's.
    """
    put(os, "fsync", os.fstat)
