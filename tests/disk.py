"""What stands in for bringing files to the disk: small runs wait for that nearly as long as they train."""

import os
from collections.abc import Callable


def leave_out_waiting(put: Callable[[object, str, object], object]) -> None:
    """Let nothing wait for the disk. A process that is killed loses nothing that it has written.

    A descriptor that is not open is refused as before.

    Args:
        put: setattr, or a MonkeyPatch's.
    """
    put(os, "fsync", os.fstat)
