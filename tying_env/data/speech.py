"""Speech as sequences of frames, with classes: JapaneseVowels, .ts files of that kind, or a folder of .wav files.

Array legend: N utterances in a split, T frames of the longest of them, F features of a frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env.data.batches import check_classes, equal_parts
from tying_env.data.corpus import SPLITS, Split
from tying_env.data.packaged import packaged_folder
from tying_env.data.recordings import Utterance, read_recordings

SPEECH_HINT = (
    "a folder serves as well, give its path: of .wav files in a subfolder for each class, or with a file _TRAIN.ts "
    "and a file _TEST.ts of the UEA archive"
)
KNOWN_SPEECH = ("japanese-vowels",)

# Packages that carry JapaneseVowels of the UEA archive; it is read from there, and they are not imported.
_PACKAGES = ("sktime", "aeon")
_FOLDER, _FILES = "datasets/data/JapaneseVowels", "JapaneseVowels"
# Of .ts files a fifth of the training utterances is for validation: of JapaneseVowels 54 of 270, six of each speaker.
# A tenth would be three.
_TS_PARTS = 5
# Of recordings that have no split of their own, as of images.
_PARTS = 10

Frames = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SpeechSet:
    """Utterances in three splits, padded behind their ends. Copies share them."""

    name: str
    """The data set as it was asked for."""
    classes: tuple[str, ...]
    """The names of the classes."""
    frames: dict[Split, Frames]
    """Per split, 0 behind an utterance's end; read-only. # (N, T, F)"""
    lengths: dict[Split, Whole]
    """Per split, the frames of each utterance; read-only. # (N,)"""
    labels: dict[Split, Whole]
    """Per split, the number of each utterance's class; read-only. # (N,)"""
    rate: int | None = None
    """Samples a second of the recordings; None where frames were given."""

    def __post_init__(self) -> None:
        check_classes(repr(self.name), self.classes)
        for split in SPLITS:
            counts = np.bincount(self.labels[split], minlength=len(self.classes))
            if not counts.all():
                lacking = self.classes[int(np.flatnonzero(counts == 0)[0])]
                raise ValueError(f"the {split} split of {self.name!r} has no utterance of the class {lacking!r}")
            for array in (self.frames[split], self.lengths[split], self.labels[split]):
                array.flags.writeable = False

    def __deepcopy__(self, memo: dict[int, Any]) -> SpeechSet:
        return self

    @property
    def features(self) -> int:
        """F, the features of a frame."""
        return int(self.frames["train"].shape[2])

    def scale(self) -> tuple[Frames, Frames]:
        """Return mean and standard deviation of each feature over the training frames, both shape (F,)."""
        frames = self.frames["train"]
        inside = frames[np.arange(frames.shape[1]) < self.lengths["train"][:, None]].astype(np.float64)  # (frames, F)
        return inside.mean(0).astype(np.float32), np.maximum(inside.std(0), 1e-6).astype(np.float32)


def load_speech(dataset: str, longest: int) -> SpeechSet:
    """Return the utterances of a data set, the same ones in the same splits every time.

    Args:
        dataset: "japanese-vowels" (Kudo et al., 1999: 270 + 370 utterances of two vowels by nine speakers, whom it is
            to name; 12 cepstral coefficients of 7 to 29 frames), from the package sktime or aeon; a folder with one
            file NAME_TRAIN.ts and NAME_TEST.ts, of whose training utterances a fifth of every class is for validation;
            or a folder of recordings, see `tying_env.data.recordings.read_recordings`, which are cut into ten parts:
            one is for validation and one for the test, where the folder does not say.
        longest: frames that an utterance may have.

    Raises:
        ValueError: neither a known name nor such a folder; a file is damaged, or has an utterance that is too long; or
            there is one class alone, or one is missing in a split. The message names the file, line, split or class.
        ImportError: the package that carries or reads this data set is not installed.
    """
    check_speech(dataset)
    named = dataset in KNOWN_SPEECH
    folder = _japanese_vowels() if named else Path(dataset).expanduser()
    found = [folder / f"{_FILES}_TRAIN.ts"] if named else sorted(folder.glob("*_TRAIN.ts"))
    if len(found) > 1:
        raise ValueError(f"the folder {folder} must have one file _TRAIN.ts, got {', '.join(p.name for p in found)}")
    if found:
        other = found[0].with_name(found[0].name.replace("_TRAIN.ts", "_TEST.ts"))
        read: dict[Split, list[Utterance]] = {"train": _read_ts(found[0]), "test": _read_ts(other)}
        return _stacked(dataset, _held_out(dataset, read, _TS_PARTS), longest, None)
    recordings, rate = read_recordings(folder)
    return _stacked(dataset, _held_out(dataset, recordings, _PARTS), longest, rate)


def check_speech(dataset: str) -> None:
    """Check that a folder is there, or that the data set has a known name; nothing is read.

    Raises:
        ValueError: neither.
    """
    if dataset not in KNOWN_SPEECH and not Path(dataset).expanduser().is_dir():
        raise ValueError(
            f"unknown speech {dataset!r}: no such folder, and not one of {', '.join(KNOWN_SPEECH)}; {SPEECH_HINT}"
        )


def _japanese_vowels() -> Path:
    for package in _PACKAGES:
        with contextlib.suppress(FileNotFoundError):
            return packaged_folder(package, _FOLDER)
    raise ImportError(
        "the speech 'japanese-vowels' comes with the package sktime (pip install 'tying-env[speech]') or aeon; "
        f"{SPEECH_HINT}"
    )


def _read_ts(path: Path) -> list[Utterance]:
    """Read a file of the UEA archive: a line for each utterance, its features divided by ":", its class behind them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    begin = next((i for i, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if begin is None:
        raise ValueError(f"{path} is no .ts file: it has no line '@data'")
    found = []
    for number, line in enumerate(lines[begin + 1 :], begin + 2):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        *features, label = line.strip().split(":")
        if not features or not label or "," in label:
            raise ValueError(f"{where} must be numbers divided by ',' and ':', and a class behind the last ':'")
        try:
            rows = [np.array(feature.split(","), dtype=np.float32) for feature in features]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"{where}: all features must have as many frames, got {sorted({len(r) for r in rows})}")
        frames = np.stack(rows, axis=1)  # (t, F)
        if not np.isfinite(frames).all():
            raise ValueError(f"{where} has a number that is not finite")
        found.append(Utterance(where, label, frames))
    if not found:
        raise ValueError(f"{path} has no utterances behind '@data'")
    return found


def _held_out(name: str, read: dict[Split, list[Utterance]], n_parts: int) -> dict[Split, list[Utterance]]:
    """Return all three splits, the missing ones cut from the training split: one part of so many for each."""
    missing = [split for split in SPLITS if split not in read]
    train = read["train"]
    if not missing:
        return read
    labels = np.unique([utterance.label for utterance in train], return_inverse=True)[1]
    rarest = int(np.bincount(labels).argmin())
    if (count := int(np.bincount(labels)[rarest])) < n_parts:
        label = train[int(np.flatnonzero(labels == rarest)[0])].label
        raise ValueError(
            f"{name!r} has {count} training utterances of the class {label!r}; it needs {n_parts}, since one part of "
            f"{n_parts} is for {' and one for '.join(missing)}"
        )
    parts = equal_parts(labels, n_parts, "parts of the utterances")
    chosen = {split: parts == n_parts - 1 - place for place, split in enumerate(missing)}
    chosen["train"] = parts < n_parts - len(missing)
    cut = {split: [train[i] for i in np.flatnonzero(inside)] for split, inside in chosen.items()}
    return {split: cut[split] if split in cut else read[split] for split in SPLITS}


def _stacked(name: str, splits: dict[Split, list[Utterance]], longest: int, rate: int | None) -> SpeechSet:
    first = splits["train"][0]
    classes = sorted({utterance.label for utterance in splits["train"]})
    number = {label: i for i, label in enumerate(classes)}
    for utterances in splits.values():
        for where, label, frames in utterances:
            if label not in number:
                raise ValueError(f"{where} is of the class {label!r}, of which there is no training utterance")
            if frames.shape[1] != first.frames.shape[1]:
                raise ValueError(
                    f"{where} has {frames.shape[1]} features in a frame, {first.where} has {first.frames.shape[1]}"
                )
            if len(frames) > longest:
                raise ValueError(
                    f"{where} has {len(frames)} frames, more than the {longest} of seq_len: raise that, or cut it"
                )
    return SpeechSet(
        name,
        tuple(classes),
        {split: _padded([u.frames for u in utterances]) for split, utterances in splits.items()},
        {split: np.array([len(u.frames) for u in utterances]) for split, utterances in splits.items()},
        {split: np.array([number[u.label] for u in utterances]) for split, utterances in splits.items()},
        rate,
    )


def _padded(utterances: Sequence[Frames]) -> Frames:
    """Return utterances (t, F) as one array (N, T, F)."""
    padded = np.zeros((len(utterances), max(map(len, utterances)), utterances[0].shape[1]), dtype=np.float32)
    for row, frames in zip(padded, utterances, strict=True):
        row[: len(frames)] = frames
    return padded
