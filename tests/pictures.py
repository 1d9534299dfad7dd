"""What stands in for pictures that take longer than the runs they are of."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave
from tying_agents.running import results

from tying_env.kinds import Kinds
from tying_env.reports import page
from tying_env.runs import tensorboard

AS_SOURCE = page._as_source  # which draws a page's figures


class TyingAsPixels:
    """Stands in for the figure of a run's last tying: a pixel for each layer."""

    def __init__(self, tying: Sequence[int], title: str, kinds: Kinds) -> None:
        self._pixels, self._title = np.array([tying], dtype=float), title

    def savefig(self, path: Path, **options: Any) -> None:
        imsave(path, self._pixels, metadata={"Title": self._title}, **options)


def leave_out_pictures(put: Callable[[object, str, object], object]) -> None:
    """Let runs and pages make do without what they draw: it takes longer than small runs and comparisons do.

    Args:
        put: setattr, or a MonkeyPatch's.
    """
    put(results, "replication_map_figure", TyingAsPixels)
    put(tensorboard, "replication_map_image", lambda *_: np.zeros((2, 2, 3), np.uint8))
    put(page, "_as_source", lambda figure: "data:,")
