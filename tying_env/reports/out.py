"""Where a page may be written. Nothing is drawn here: a command can ask before it imports what draws."""

from pathlib import Path

from tying_env.files import check_new


def check_out(path: Path, overwrite: bool = False) -> None:
    """Check that a report may be written to `path`.

    Raises:
        FileExistsError: there is something, and `overwrite` is off.
        IsADirectoryError: it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; the report is one file")
    if not overwrite:
        check_new(path, "use --force or another --out")
