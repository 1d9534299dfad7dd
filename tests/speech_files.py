"""Small speech: .ts files and recordings that a test writes itself."""

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

F = 4  # features of a frame
LONGEST = 7
CLASSES = ("ada", "ben", "cem")


def ts_text(utterances: Sequence[tuple[npt.NDArray[np.float64], str]]) -> str:
    """Return a file of the UEA archive: utterances (t, F) with their classes."""
    lines = [":".join([*(",".join(map(str, row)) for row in frames.T), label]) for frames, label in utterances]
    return "\n".join(["# a remark", "@problemName Small", "@classLabel true", "@data", *lines, ""])


def write_ts(folder: Path, train: int = 10, test: int = 3, seed: int = 0) -> Path:
    """Write so many utterances of each class: noise about a point that is the class's own."""
    rng = np.random.default_rng(seed)
    points = np.random.default_rng(1).normal(size=(len(CLASSES), F)) * 2
    for part, count in (("TRAIN", train), ("TEST", test)):
        made = [
            (np.round(points[i] + rng.normal(size=(rng.integers(2, LONGEST + 1), F)), 3), name)
            for i, name in enumerate(CLASSES)
            for _ in range(count)
        ]
        (folder / f"Small_{part}.ts").write_text(ts_text(made), encoding="utf-8")
    return folder


def tone(hertz: float, seconds: float = 0.1, rate: int = 8000) -> npt.NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_wav(path: Path, samples: npt.NDArray[np.float64], rate: int = 8000, channels: int = 1) -> Path:
    """Write samples from -1 to 1 as 16-bit PCM, the same in every channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(np.round(samples * 32767).astype("<i2"), channels).tobytes())
    return path


def write_recordings(folder: Path, count: int = 10) -> Path:
    """Write so many tones of two classes."""
    for label, hertz in (("low", 400.0), ("high", 2000.0)):
        for i in range(count):
            write_wav(folder / label / f"{i}.wav", tone(hertz + 10 * i, 0.05 + 0.002 * i))
    return folder
