"""Images with classes: scikit-learn's digits, CIFAR-10 of the Hugging Face hub, or a file of packed JPEGs.

Array legend: N images, C channels, H and W pixels high and wide.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tying_env.archives import read_arrays
from tying_env.data.batches import check_classes, equal_parts
from tying_env.data.corpus import SPLITS, Split
from tying_env.data.hub import load_from_hub

PACKED_KEYS = tuple(f"{split}_{part}" for split in ("train", "test") for part in ("jpeg", "offsets", "labels"))
PACKED_HINT = f"an .npz file of packed JPEGs ({', '.join(PACKED_KEYS)}, class_names) serves as well: give its path"
KNOWN_IMAGES = ("digits", "cifar10")

_HUB_CIFAR10 = "uoft-cs/cifar10"
_PARTS = 10  # into which images are divided where a split is missing; one part is one such split

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size in three splits. Copies share them."""

    name: str
    """The data set as it was asked for."""
    classes: tuple[str, ...]
    """The names of the classes."""
    images: dict[Split, Pixels]
    """Per split; read-only. # (N, C, H, W)"""
    labels: dict[Split, Labels]
    """Per split, the number of each image's class; read-only. # (N,)"""

    def __post_init__(self) -> None:
        check_classes(repr(self.name), self.classes)
        for split in SPLITS:
            count = len(self.images[split])
            if not count:
                raise ValueError(f"the {split} split of the images {self.name!r} is empty")
            wrong = np.flatnonzero((self.labels[split] < 0) | (self.labels[split] >= len(self.classes)))
            if len(wrong):
                raise ValueError(
                    f"{self.name!r} has {len(self.classes)} classes, but image {wrong[0]} of the {split} split "
                    f"is of class {self.labels[split][wrong[0]]}"
                )
            if split == "train" and len(found := np.unique(self.labels[split])) == 1:
                check_classes(f"the train split of {self.name!r}", (self.classes[found[0]],))
            self.images[split].flags.writeable = self.labels[split].flags.writeable = False

    def __deepcopy__(self, memo: dict[int, Any]) -> ImageSet:
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images["train"].shape[1:]
        return channels, height, width

    def scale(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return mean and standard deviation of the training pixels in each channel, both shape (C, 1, 1)."""
        train = self.images["train"]
        mean, std = train.mean((0, 2, 3), keepdims=True)[0], train.std((0, 2, 3), keepdims=True)[0]
        return mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32)


def load_images(dataset: str) -> ImageSet:
    """Return the images of a data set.

    Args:
        dataset: "digits" (1,797 handwritten digits of 8 x 8 grey pixels, from scikit-learn: a tenth is held out for
            validation and a tenth for the test); "cifar10" of the hub; or an .npz file of JPEGs: `train_jpeg` and
            `test_jpeg` are all files joined, (bytes,) uint8; `_offsets` says where each begins and the last ends,
            (N + 1,); `_labels` (N,); `class_names`. A tenth of the training images is for validation. What is held
            out has its share of every class, and is always the same.

    Raises:
        ValueError: neither a known name nor a file; or there is one class alone, or the file does not hold what it
            should: the message says which image of which split cannot be decoded, or is of another size than the first.
        ImportError: the package that reads this data set is not installed.
        ConnectionError: the hub's data set could not be loaded.
    """
    check_images(dataset)
    if dataset == "digits":
        return _load_digits()
    if dataset == "cifar10":
        return _load_hub_cifar10()
    return _load_packed(dataset, Path(dataset).expanduser())


def check_images(dataset: str) -> None:
    """Check that a file of images is there, or that the data set has a known name; no image is read.

    Raises:
        ValueError: neither.
    """
    if dataset not in KNOWN_IMAGES and dataset.endswith(".npy"):
        raise ValueError(
            f"images must be in an .npz file, which has several arrays, and {dataset!r} is one array: {PACKED_HINT}"
        )
    if dataset not in KNOWN_IMAGES and not Path(dataset).expanduser().is_file():
        raise ValueError(
            f"unknown images {dataset!r}: no such file, and not one of {', '.join(KNOWN_IMAGES)}; {PACKED_HINT}"
        )


def _load_digits() -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            f"the images 'digits' come with scikit-learn (pip install 'tying-env[vision]'); {PACKED_HINT}"
        ) from error
    digits = load_digits()
    pixels = digits.images.astype(np.uint8)[:, None]  # (N, 1, 8, 8), 0..16
    parts = _parts(digits.target)
    chosen = {"train": parts < _PARTS - 2, "validation": parts == _PARTS - 2, "test": parts == _PARTS - 1}
    return ImageSet(
        "digits",
        tuple(map(str, digits.target_names)),
        {split: pixels[chosen[split]] for split in SPLITS},
        {split: digits.target[chosen[split]].astype(np.int64) for split in SPLITS},
    )


def _load_hub_cifar10() -> ImageSet:
    try:
        splits: dict[str, Any] = dict(load_from_hub(_HUB_CIFAR10))
    except ImportError as error:
        raise ImportError(
            "the images 'cifar10' come from the Hugging Face hub, which needs the package `datasets` "
            f"(pip install 'tying-env[hub]'); {PACKED_HINT}"
        ) from error
    except Exception as error:  # every layer under load_dataset has classes of its own for being out of reach
        raise ConnectionError(
            f"the images 'cifar10' ({_HUB_CIFAR10} on the Hugging Face hub) could not be loaded: {error}; {PACKED_HINT}"
        ) from error
    missing = [split for split in ("train", "test") if split not in splits]
    if missing:
        raise ValueError(f"'cifar10' ({_HUB_CIFAR10}) has no split {missing[0]!r}, only {', '.join(splits)}")
    pixels = {
        split: _stacked((np.asarray(image.convert("RGB")) for image in splits[split]["img"]), f"'cifar10', {split}")
        for split in ("train", "test")
    }
    labels = {split: np.asarray(splits[split]["label"], dtype=np.int64) for split in ("train", "test")}
    return _with_validation("cifar10", tuple(splits["train"].features["label"].names), pixels, labels)


def _load_packed(name: str, path: Path) -> ImageSet:
    try:
        arrays = read_arrays(path)
        missing = [key for key in (*PACKED_KEYS, "class_names") if key not in arrays]
        if missing:
            raise ValueError(f"it has no array {missing[0]!r}")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a file of packed images: {error}; {PACKED_HINT}") from error
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ValueError(f"{path}: class_names must be texts, (classes,), got {names.dtype} of shape {names.shape}")
    pixels, labels = {}, {}
    for split in ("train", "test"):
        data, offsets, classes = (arrays[f"{split}_{part}"] for part in ("jpeg", "offsets", "labels"))
        for part, values in (("offsets", offsets), ("labels", classes)):
            if values.dtype.kind not in "iu":
                shown = values.ravel()[:1].tolist()
                raise ValueError(f"{path}: {split}_{part} must be whole numbers, got {values.dtype}, {shown} first")
        if classes.ndim != 1 or offsets.shape != (len(classes) + 1,) or data.ndim != 1 or data.dtype != np.uint8:
            raise ValueError(
                f"{path}: {split}_jpeg must be (bytes,) uint8, {split}_labels (N,) and {split}_offsets (N + 1,), got "
                f"{data.shape} {data.dtype}, {classes.shape} and {offsets.shape}"
            )
        wrong = np.flatnonzero((offsets[:-1] >= offsets[1:]) | (offsets[:-1] < 0) | (offsets[1:] > len(data)))
        if len(wrong):
            i = int(wrong[0])
            raise ValueError(
                f"{path}: {split}_offsets must ascend from 0 to the {len(data)} bytes of {split}_jpeg, but image {i} "
                f"begins at {offsets[i]} and ends at {offsets[i + 1]}"
            )
        files = (data[a:b].tobytes() for a, b in itertools.pairwise(offsets.tolist()))
        where = f"{path}, {split}"
        pixels[split] = _stacked((_decode(file, f"{where}: image {i}") for i, file in enumerate(files)), where)
        labels[split] = classes.astype(np.int64)
    return _with_validation(name, tuple(map(str, names)), pixels, labels)


def _decode(data: bytes, where: str) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))  # (H, W, 3)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{where} cannot be decoded: {error}") from error


def _stacked(images: Iterable[Pixels], where: str) -> Pixels:
    """Return images (H, W, C) as one array (N, C, H, W)."""
    stacked: list[Pixels] = []
    for i, image in enumerate(images):
        if stacked and image.shape != stacked[0].shape:
            raise ValueError(f"{where}: image {i} is {image.shape}, the first is {stacked[0].shape}; all must be equal")
        stacked.append(image)
    if not stacked:
        raise ValueError(f"{where}: there are no images")
    return np.ascontiguousarray(np.stack(stacked).transpose(0, 3, 1, 2))


def _with_validation(
    name: str, classes: tuple[str, ...], pixels: dict[str, Pixels], labels: dict[str, Labels]
) -> ImageSet:
    held_out = _parts(labels["train"]) == _PARTS - 1
    return ImageSet(
        name,
        classes,
        {"train": pixels["train"][~held_out], "validation": pixels["train"][held_out], "test": pixels["test"]},
        {"train": labels["train"][~held_out], "validation": labels["train"][held_out], "test": labels["test"]},
    )


def _parts(labels: Labels) -> npt.NDArray[np.int64]:
    """Return for each image one of `_PARTS` parts, (N,)."""
    return equal_parts(labels, _PARTS, "parts of the images")
