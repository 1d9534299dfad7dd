"""Writes the tables of benchmark files into a page, between marks, so that no number is typed by hand.

<!-- benchmark: plain -->
what is here is written anew
<!-- end -->
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tying_agents.benchmarks.memory import table_of_memory
from tying_agents.benchmarks.showing import median_of, range_of, ratio_of, required_of
from tying_agents.benchmarks.turns import TableRow
from tying_env.files import written_whole

_MARKED = re.compile(r"(<!-- benchmark: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


class Measured(NamedTuple):
    """A measurement as a file has it."""

    file: Path
    machine: dict[str, Any]
    options: dict[str, Any]
    rows: list[TableRow]


def write_page(page: Path, files: Sequence[Path]) -> list[str]:
    """Write the tables of files into the marked places of a page, and return the names of the measurements.

    Raises:
        ValueError: the page and the files do not fit each other, or a file is none of the benchmark's.
        OSError: one of them cannot be read or written.
    """
    text = page.read_text(encoding="utf-8")
    found = read_files(files)
    begun = text.count("<!-- benchmark:")
    names = [match[1] for match in _MARKED.findall(text)]
    if not begun or len(names) != begun or any("<!-- benchmark:" in match[2] for match in _MARKED.findall(text)):
        raise ValueError(f"{page} must have marks <!-- benchmark: NAME --> ... <!-- end -->, each with its end")
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{page} has a place for {missing[0]!r}, of which the files have {', '.join(found) or 'nothing'}"
        )
    written = _MARKED.sub(lambda match: match[1] + to_markdown(match[2], found[match[2]]) + match[4], text)
    with written_whole(page) as unfinished:
        unfinished.write_text(written, encoding="utf-8")
    return names


def read_files(files: Sequence[Path]) -> dict[str, Measured]:
    """Return the measurements of files by their names.

    Raises:
        ValueError: a file is none of the benchmark's, or two have the same measurement.
        OSError: one cannot be read.
    """
    found: dict[str, Measured] = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            for name, rows in content["measurements"].items():
                if name in found:
                    raise ValueError(f"{name!r} is in {found[name].file} and in {file}: give one of them")
                made = [TableRow(**row) for row in rows]
                found[name] = Measured(file, content["machine"], content["options"], made)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} is no file of layer-tying benchmark --json") from error
    return found


def to_markdown(name: str, measured: Measured) -> str:
    """Return where a measurement was made and its numbers, as Markdown."""
    rows = measured.rows
    if name == "memory":
        table = table_of_memory(rows)
    elif all(": " in row.name for row in rows):
        table = _crossed(rows)
    else:
        table = [["", "median", "min .. max", "ratio", "required"]]
        table += [[row.name, median_of(row), range_of(row), _times(row, rows), required_of(row)] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    lines.insert(1, "| " + " | ".join(["---"] * len(table[0])) + " |")
    return "\n".join([_where(name, measured), "", *(re.sub(r" +", " ", line) for line in lines), ""])


def _crossed(rows: Sequence[TableRow]) -> list[list[str]]:
    """Return a table of rows named "line: column"; the fewer ones are the columns."""
    names = [row.name.partition(": ")[::2] for row in rows]
    lines, columns = (list(dict.fromkeys(name[i] for name in names)) for i in range(2))
    turned = len(columns) > len(lines)
    cells = dict(zip(names, (_cell(row, rows) for row in rows), strict=True))
    if turned:
        lines, columns = columns, lines
    table = [["", *columns]]
    for line in lines:
        table.append([line, *(cells.get((column, line) if turned else (line, column), "") for column in columns)])
    return table


def _cell(row: TableRow, rows: Sequence[TableRow]) -> str:
    ratio = _times(row, rows)
    told = "; ".join(filter(None, (ratio, required_of(row))))
    return f"{median_of(row)} ({told})" if told else median_of(row)


def _times(row: TableRow, rows: Sequence[TableRow]) -> str:
    ratio = ratio_of(row, rows)
    return ratio if not ratio or ratio.startswith("varies") else f"{ratio} x"


def _where(name: str, measured: Measured) -> str:
    """Return machine and settings as a sentence; files of before had fewer, and other names for some."""
    machine, options = measured.machine, measured.options
    work, many = options["workload"], options["many"]
    torch = machine["torch"] if "torch" in machine else machine["versions"]["torch"]
    said = [
        str(machine.get("processor", machine.get("cpu"))),
        f"{machine['cores']} cores, of which torch takes {machine.get('threads', machine.get('torch_threads'))}",
        f"torch {torch}",
        *(["products by oneDNN" if machine["onednn"] else "torch's own products"] if "onednn" in machine else []),
        *(f"{variable}={value}" for variable, value in machine.get("environment", {}).items()),
        f"load {machine['load_at_start']:.1f} at the start",
    ]
    if name == "vector":
        sizes = [many[f"many_{size}"] for size in ("n_layer", "n_embd", "batch_size", "seq_len")]
        said.append("{} x {}, {} x {} tokens".format(*sizes))
    elif name not in ("table", "dqn"):
        said.append(f"{work['n_layer']} x {work['n_embd']} (wide: {work['wide_n_embd']})")
        said.append(f"{work['batch_size']} x {work['seq_len']} tokens")
    if name != "memory":
        said += [f"{work['repeats']} turns", {"wall": "time that passed", "cpu": "processor time"}[work["clock"]]]
    return f"{measured.file.name}: {', '.join(said)}."
