"""What stands in for pictures that take longer than the runs they are of."""

from collections.abc import Callable

from tests.maps import leave_out_maps
from tying_env.reports import page

AS_SOURCE = page._as_source  # which draws a page's figures


def leave_out_pictures(put: Callable[[object, str, object], object]) -> None:
    """Let runs and pages make do without what they draw.

    Args:
        put: setattr, or a MonkeyPatch's.
    """
    leave_out_maps(put)
    put(page, "_as_source", lambda figure: "data:,")
