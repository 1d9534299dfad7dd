"""Files of several arrays (`.npz`), without pickles. NumPy only, no torch."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an `.npz` file by their names.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or another file; the message says why, and leaves the file's name to the caller.
    """
    try:
        # NumPy leaves a file open that it opened and cannot read.
        with open(path, "rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, and no names")
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, zlib.error) as error:
        raise ValueError(str(error)) from error
