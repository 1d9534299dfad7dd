"""Recordings of speech, .wav files, as log-mel features: what a network reads instead of samples.

A frame is the logarithm of the energy in bands that are spaced as the ear hears (mel; Davis & Mermelstein, 1980), in 25
ms of sound, every 10 ms. transformers' own functions compute it, soundfile reads the files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tying_env.data.corpus import Split

N_MELS = 40
WINDOW, HOP = 0.025, 0.01  # seconds
# Below it the lower bands would have no frequencies of their own.
LEAST_RATE = 4000
FOLDERS: dict[Split, str] = {"train": "train", "validation": "valid", "test": "test"}

# What is sound as well, and is not read. (The licence or the texts beside recordings are nobody's utterances.)
_SOUND = frozenset((".aac", ".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".w64", ".wma"))

Samples = npt.NDArray[np.float32]


class Utterance(NamedTuple):
    """Something said, as frames of features."""

    where: str  # it comes from: a file, a line
    label: str  # its class
    frames: npt.NDArray[np.float32]  # (t, F)


def read_recordings(folder: Path) -> tuple[dict[Split, list[Utterance]], int]:
    """Read .wav files of one channel.

    Args:
        folder: with a subfolder of files for each class, named as the class; or with train/, test/ and, if there is
            one, valid/, each of which has such subfolders. Names that begin with "_" or "." are passed over, like
            Speech Commands' _background_noise_, and so is what is no sound: a licence, texts.

    Returns:
        The splits that the folder says, "train" alone if none; and the samples a second of all files.

    Raises:
        ValueError: it is no such folder, or has sound or folders where they would not be read; or a file is no
            recording, is cut short, is empty or has other than one channel or another rate than the first. The message
            names it.
        ImportError: the package soundfile, or the library that it brings, is not there.
    """
    there = [split for split, name in FOLDERS.items() if (folder / name).is_dir()]
    if there and not {"train", "test"} <= set(there):
        raise ValueError(f"the folder {folder} must have both train/ and test/, or neither, got {FOLDERS[there[0]]}/")
    if there and (odd := [sub for sub in _subfolders(folder) if sub.name not in FOLDERS.values()]):
        raise ValueError(f"the folder {folder} may have train/, valid/ and test/, got {odd[0].name}/ beside them")
    _refuse_stray(folder)
    files = {split: _files(folder / FOLDERS[split]) for split in there} or {"train": _files(folder)}
    first = files["train"][0][1]
    rate = _read(first)[1]
    if rate < LEAST_RATE:
        raise ValueError(f"{first} must have at least {LEAST_RATE:,} samples a second, got {rate:,}")
    features = _log_mels(rate)
    found: dict[Split, list[Utterance]] = {}
    for split, named in files.items():
        found[split] = []
        for label, path in named:
            samples, own = _read(path)
            if own != rate:
                raise ValueError(
                    f"{path} has {own:,} samples a second and {first} has {rate:,}: resample them to one rate"
                )
            found[split].append(Utterance(str(path), label, features(samples)))
    return found, rate


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Return the files of a folder with the names of their classes, in a fixed order."""
    _refuse_stray(folder)
    found = []
    for sub in _subfolders(folder):
        inside = sorted(path for path in sub.iterdir() if path.name[0] not in "._")
        for path in inside:
            if path.is_dir():
                raise ValueError(f"the recordings of the class {sub.name!r} must stand in {sub} itself, got {path}")
            if _is_sound(path) and path.suffix.lower() != ".wav":
                raise ValueError(f"{path} must be a .wav file, as all recordings that are to be read")
        waves = [path for path in inside if path.suffix.lower() == ".wav"]
        if not waves:
            raise ValueError(f"the folder {sub} must have .wav files, the utterances of the class {sub.name!r}")
        found += [(sub.name, path) for path in waves]
    if not found:
        raise ValueError(f"the folder {folder} must have a subfolder of .wav files for each class, got none")
    return found


def _refuse_stray(folder: Path) -> None:
    if stray := [path for path in sorted(folder.iterdir()) if _is_sound(path)]:
        raise ValueError(f"{stray[0]} stands beside the subfolders of the classes: put it into that of its class")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _is_sound(path: Path) -> bool:
    return path.name[0] not in "._" and path.suffix.lower() in {".wav", *_SOUND} and path.is_file()


def _read(path: Path) -> tuple[Samples, int]:
    """Return the samples of a file, from -1 to 1, and how many a second there are."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: it is there, and libsndfile is not
        raise ImportError(
            f"recordings need the package soundfile (pip install 'tying-env[speech]'): {error}"
        ) from error
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, channels)
        _check_whole(path)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no recording that can be read: {error}") from error
    if samples.shape[1] != 1 or not len(samples):
        raise ValueError(f"{path} must have one channel with samples, got {samples.shape[1]} with {len(samples)}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} has a sample that is not finite")
    return samples[:, 0], int(rate)


def _check_whole(path: Path) -> None:
    """Check that a file has the samples that its header promises: libsndfile reads what there is.

    Raises:
        ValueError: it has fewer.
    """
    with path.open("rb") as file:
        size, block = file.seek(0, 2), 1
        file.seek(0)
        if file.read(12)[:4] != b"RIFF":  # other containers are libsndfile's alone
            return
        while len(head := file.read(8)) == 8:
            name, promised = struct.unpack("<4sI", head)
            if name == b"data":
                there = size - file.tell()
                # What writes into a pipe does not know how much there will be, and says 0 or the most there can be.
                if there < promised < 0x7FFFF000:
                    raise ValueError(
                        f"it is cut short: its header promises {promised // block:,} frames ({promised:,} bytes), and "
                        f"{there // block:,} ({there:,} bytes) are there"
                    )
                return
            begin = file.tell()
            if name == b"fmt ":
                block = max(1, int.from_bytes(file.read(14)[12:], "little"))  # bytes of a frame, of all channels
            file.seek(begin + promised + promised % 2)


def _log_mels(rate: int) -> Callable[[Samples], npt.NDArray[np.float32]]:
    """Return what makes log-mel features (t, F) of samples at this rate."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    window = round(WINDOW * rate)
    bins = max(512, 2 ** (window - 1).bit_length())  # so many that the lowest bands have some
    filters = mel_filter_bank(bins // 2 + 1, N_MELS, 0.0, rate / 2, rate)
    options: dict[str, Any] = {
        "window": window_function(window, "hann"),
        "frame_length": window,
        "hop_length": round(HOP * rate),
        "fft_length": bins,
        "power": 2.0,
        "mel_filters": filters,
        "log_mel": "log",
    }

    def features(samples: Samples) -> npt.NDArray[np.float32]:
        mels: npt.NDArray[np.float32] = spectrogram(samples, **options)
        return np.ascontiguousarray(mels.T)

    return features
