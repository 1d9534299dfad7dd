"""What stands in for pictures that take longer than the runs they are of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave

from tying_env.kinds import Kinds


class TyingAsPixels:
    """Stands in for the figure of a run's last tying: a pixel for each layer."""

    def __init__(self, tying: Sequence[int], title: str, kinds: Kinds) -> None:
        self._pixels, self._title = np.array([tying], dtype=float), title

    def savefig(self, path: Path, **options: Any) -> None:
        imsave(path, self._pixels, metadata={"Title": self._title}, **options)
