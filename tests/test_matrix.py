"""The page of what can be tied: it has every row, no fault, and a few of its rows are tried again."""

import pytest

from tests.reliability.matrix import ADAPTERS, COLUMNS, FAMILIES, FAULT, PAGE, TYING, Row, cells_of, line

ROWS = FAMILIES | ADAPTERS


def written() -> dict[str, str]:
    """What the page says: name -> row."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}


def test_the_page_has_forty_families_and_every_adapter_and_no_fault() -> None:
    assert len(FAMILIES) == 40
    assert {name for name in written() if "---" not in name} == {"family", "adapter", *ROWS}
    assert FAULT not in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["mixtral", "whisper", "swin", "dora", "poly", "prefix tuning"])
def test_a_row_of_the_page_is_true(name: str) -> None:
    columns = COLUMNS if name in FAMILIES else TYING
    assert line(name, cells_of(ROWS[name], columns)) == written()[name]


def test_what_neither_ties_nor_is_refused_by_name_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    def make() -> None:
        raise RuntimeError("odd")

    row = Row(make, FAMILIES["llama"].draw)  # type: ignore[arg-type]
    assert all(cell.startswith(FAULT) for cell in cells_of(row, TYING))
    assert "RuntimeError: odd" in capsys.readouterr().err
