"""The regime map: dropout is chosen on validation, differences are paired by seed."""

from pathlib import Path
from typing import Any

import pytest
from tying_agents.commands.guard import plain_console
from tying_agents.commands.studies import write_map
from tying_agents.studies.regimes import as_table, draw_regimes, read_regimes

from tests.run_folders import change, make_records, make_run
from tying_env.reports.drawing import as_svg


def make_study(folder: Path) -> dict[int, Path]:
    """Write runs: dropout helps conventional training at little text, and the sandwich is better there alone."""
    results = {
        30_000: {("conventional", 0.0): 12.0, ("conventional", 0.1): 10.0, ("sandwich", 0.0): 9.0},
        500_000: {("conventional", 0.0): 8.0, ("conventional", 0.1): 8.5, ("sandwich", 0.0): 8.8},
    }
    for train_bytes, arms in results.items():
        for (agent, dropout), test in arms.items():
            for seed in range(3):
                path = folder / str(train_bytes) / f"{agent}{dropout}" / str(seed)
                label = f"{agent}, dropout {dropout:g}"
                env = {"dropout": dropout, "learning_rate": 0.004, "tokenizer": "bytes"}
                records = make_records(10, 4, seed)
                if agent == "conventional":  # at its best at step 4, which the record of step 6 repeats
                    for number, record in enumerate(records):
                        record["validation_perplexity"] = None if not number else 9.0 if number < 3 else 9.5
                about: dict[str, Any] = {"env": env, "config": {"label": label}, "records": records}
                make_run(path, agent, seed, perplexity=test + 0.1 * seed, **about)
                if agent == "sandwich":  # not the same difference in every seed
                    summary = {"best": {"perplexity": test + 0.1 * seed + 0.02 * (seed == 2)}}
                    change(path, "summary.json", test=summary)
    return {train_bytes: folder / str(train_bytes) for train_bytes in results}


def test_the_map_compares_each_arm_at_its_better_dropout(tmp_path: Path) -> None:
    found = read_regimes(make_study(tmp_path))
    assert [(each.train_bytes, each.agent, each.dropout) for each in found] == [
        (30_000, "conventional", 0.1),
        (30_000, "sandwich", 0.0),
        (500_000, "conventional", 0.0),
        (500_000, "sandwich", 0.0),
    ]
    little, much = (each.difference for each in found if each.agent == "sandwich")
    assert little is not None and much is not None
    assert little.mean == pytest.approx(-1 + 0.02 / 3) and much.mean == pytest.approx(0.8 + 0.02 / 3)
    assert little.percent == pytest.approx(100 * little.mean / 10.1)
    table = as_table(found).splitlines()
    assert table[2] == "| 30 KB | conventional | 0.1 | 0.004 | 4 of 20 | 10.10 | reference | – |"
    assert table[3].startswith("| 30 KB | sandwich | 0 | 0.004 | 20 of 20 * | 9.11 | -0.99 (-9.8%) [-")
    assert table[-1].startswith("\\* Best in the last tenth of the run")
    assert b"<svg" in as_svg(draw_regimes(found))


def test_the_map_needs_conventional_training(tmp_path: Path) -> None:
    make_run(tmp_path / "30" / "0", "sandwich", 0, config={"label": "sandwich, dropout 0"}, env={"dropout": 0.0})
    with pytest.raises(ValueError, match="has no finished run of conventional"):
        read_regimes({30: tmp_path / "30"})


def test_the_map_is_written_beside_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for train_bytes, folder in make_study(tmp_path / "made").items():
        (tmp_path / "map" / f"{train_bytes // 1000}KB").mkdir(parents=True)
        folder.rename(tmp_path / "map" / f"{train_bytes // 1000}KB" / "runs")
    write_map(tmp_path / "map", (30_000, 500_000), plain_console())
    assert (tmp_path / "map/regimes.md").read_text(encoding="utf-8") in capsys.readouterr().out
    assert (tmp_path / "map/regimes.png").read_bytes().startswith(b"\x89PNG")
