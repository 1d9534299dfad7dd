"""Less training text: the same validation and test splits, and pieces from all over the training text."""

from pathlib import Path

from tying_env.data.corpus import FOLDER_FILES, SPLITS, open_source
from tying_env.files import written_whole

# Bytes of a piece: long enough for the network's windows, short enough for pieces from many documents.
_PIECE = 4_000


def cut_text(dataset: str, train_bytes: int, folder: Path) -> None:
    """Write a folder of text with about so many bytes to train on; one that is there already stays.

    Pieces are taken at equal distances, so that what is left is a mixture like the whole, whatever its order.

    Args:
        dataset: as `--dataset`.
        train_bytes: of UTF-8, to keep.
        folder: for train.txt, valid.txt and test.txt.

    Raises:
        ValueError: there is less text than that.
        OSError: text or folder cannot be used.
    """
    if all((folder / name).exists() for name in FOLDER_FILES.values()):
        return
    source = open_source(dataset)
    train = "\n".join(source.texts("train"))
    total = len(train.encode())
    if not 0 < train_bytes <= total:
        raise ValueError(f"train_bytes must be from 1 to the {total:,} bytes of {dataset!r}, got {train_bytes:,}")
    folder.mkdir(parents=True, exist_ok=True)
    n_pieces = max(1, train_bytes // _PIECE)
    length = round(len(train) * train_bytes / total / n_pieces)  # in characters
    starts = (number * len(train) // n_pieces for number in range(n_pieces))
    kept = {"train": [train[start : start + length] for start in starts]}
    for split in SPLITS:
        with written_whole(folder / FOLDER_FILES[split]) as unfinished:
            unfinished.write_text("\n".join(kept.get(split) or source.texts(split)), encoding="utf-8")
