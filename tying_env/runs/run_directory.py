"""The folder of one run: its settings, a line per decision, networks, results.

config.json              every setting, versions, git commit, seed
metrics.jsonl            a line per decision; no clock reading, so that equal seeds give equal files
summary.json             how it ended: test and validation results, speed, memory
best.safetensors         the network with the best validation perplexity
final.safetensors        the network at the end
replication_map.png      the paper's Fig. 1, at the end
events.out.tfevents.*    TensorBoard
"""

import json
import os
from pathlib import Path
from typing import Any, Self

from tying_env.files import naming, to_json, written_whole

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
BEST, FINAL, MAP = "best.safetensors", "final.safetensors", "replication_map.png"


class RunDirectory:
    """Writes and reads the folder of a run. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the folder of a new run.

        Raises:
            FileExistsError: something is there already; a run is never overwritten.
        """
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise FileExistsError(
                f"the run directory {path} exists already and is left as it is; choose another --run-dir"
            ) from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of an existing run.

        Raises:
            FileNotFoundError: there is no run at this path.
        """
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no {CONFIG}")
        return cls(path)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        with written_whole(self.path / name) as unfinished:
            unfinished.write_text(to_json(value, indent=2) + "\n", encoding="utf-8")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file.

        Raises:
            FileNotFoundError: it is not there.
        """
        value: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return value

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl, as `append` does."""
        self.append(METRICS, to_json(record) + "\n")

    def append(self, name: str, text: str) -> None:
        """Add text to the end of a file.

        Raises:
            OSError: it cannot be written (no space left, say); what stood in the file before stays whole.
        """
        data, path = text.encode(), self.path / name
        with naming(path), open(path, "ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except BaseException:
                file.truncate(end)
                raise

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl, a dictionary per decision."""
        path = self.path / METRICS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
