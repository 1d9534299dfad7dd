"""What stands in for the maps of the tying that runs draw: they take longer than small runs do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave
from tying_agents.running import results

from tying_env.kinds import Kinds
from tying_env.runs import tensorboard


class TyingAsPixels:
    """Stands in for the figure of a run's last tying: a pixel for each layer."""

    def __init__(self, tying: Sequence[int], title: str, kinds: Kinds) -> None:
        self._pixels, self._title = np.array([tying], dtype=float), title

    def savefig(self, path: Path, **options: Any) -> None:
        imsave(path, self._pixels, metadata={"Title": self._title}, **options)


def leave_out_maps(put: Callable[[object, str, object], object]) -> None:
    """Let runs make do without what they draw.

    Args:
        put: setattr, or a MonkeyPatch's.
    """
    put(results, "replication_map_figure", TyingAsPixels)
    put(tensorboard, "replication_map_image", lambda *_: np.zeros((2, 2, 3), np.uint8))
