"""Results of one command in one JSON file that grows row by row, and from which the same command resumes."""

import json
from pathlib import Path
from typing import Any

from tying_env.differences import listed
from tying_env.files import to_json, written_whole


class ResultsFile:
    """The results in a file, or (None) in memory alone.

    Args:
        path: the file; its folder is made. What is there already must be of the same settings.
        settings: what decides the results, ready for JSON.
        key: the entries of a result that tell it from the others.
        before: settings that files of earlier versions do not name, as they were then.

    Raises:
        ValueError: the file holds results of other settings (the message lists them), or something else.
        OSError: it cannot be written.
    """

    def __init__(
        self, path: Path | None, settings: dict[str, Any], key: tuple[str, ...], before: dict[str, Any]
    ) -> None:
        self._path, self._key, self._before = path, key, before
        self._settings: dict[str, Any] = json.loads(to_json(settings))
        self.results: list[dict[str, Any]] = []
        if path is None:
            return
        if path.exists():
            self.results = self._read(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write()  # whether it can be written shows before hours of training

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the result of this key, None if it is not there yet."""
        return next((row for row in self.results if all(row[name] == key[name] for name in self._key)), None)

    def add(self, result: dict[str, Any]) -> None:
        """Add a result, and write all of them.

        Raises:
            OSError: the file cannot be written; the earlier results are whole.
        """
        self.results.append(json.loads(to_json(result)))
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            with written_whole(self._path) as unfinished:
                text = to_json({"settings": self._settings, "results": self.results}, indent=2) + "\n"
                unfinished.write_text(text, encoding="utf-8")

    def _read(self, path: Path) -> list[dict[str, Any]]:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            settings, results = self._before | dict(stored["settings"]), [dict(row) for row in stored["results"]]
            assert all(name in row for row in results for name in self._key)
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
            raise ValueError(f"{path} exists already and holds no such results; choose another --out") from error
        if differ := listed(settings, self._settings):
            raise ValueError(f"{path} holds results of other settings: {'; '.join(differ)}. Choose another --out")
        return results
