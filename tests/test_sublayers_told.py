"""What a run of sublayers says of itself: tables, maps, figures, and the bytes that it holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tying_agents.commands import start

from tests.tiny_runs import tiny_run
from tying_env.env import LayerTyingEnv
from tying_env.kinds import Kinds
from tying_env.render import replication_map_text
from tying_env.reports.comparison import load_comparison
from tying_env.reports.costs import cost_table
from tying_env.reports.gallery import run_pictures
from tying_env.reports.html import make_report, render_page
from tying_env.reports.loading import load_run
from tying_env.reports.summary import summary_rows
from tying_env.runs import RunDirectory

SUBLAYERS = Kinds.one_after_the_other((4, 4), ("attention", "feed-forward"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    """One attention for four blocks, and a feed-forward part for each."""
    folder = tmp_path_factory.mktemp("told") / "run"
    return tiny_run(folder, text_folder, "shared-attention", units="sublayers")


def test_units_are_counted_as_units(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = dict(summary_rows(RunDirectory.open(told)))
    assert rows["independent units, end"] == "5 of 8"
    assert rows["independent units, mean"].startswith("5.00 of 8  (by chance alone: 4.17)")  # twice H_4
    assert not any("layers" in name for name in rows)
    assert start("evaluate", [str(told), "--windows", "4"]) == 0
    assert "independent units │ 5 of 8" in " ".join(capsys.readouterr().out.split())
    comparison = load_comparison([told])
    assert cost_table(comparison).headings[1] == "independent units"
    page = render_page(make_report(comparison))
    assert "independent units (chance)" in page and "independent layers (chance)" not in page


def test_the_map_has_a_row_for_each_kind(told: Path) -> None:
    tying = load_run(told).records[-1]["tying"]
    assert tying == [0, 0, 0, 0, 4, 5, 6, 7]
    lines = replication_map_text(tying, SUBLAYERS).splitlines()
    assert [line.strip() for line in lines if not line.strip()[0].isdigit()] == ["attention", "feed-forward"]
    assert [line.split()[0] for line in lines if line.strip()[0].isdigit()] == ["0", "1", "2", "3"] * 2
    assert sum("●" in line for line in lines) == 5 and sum("= 0" in line for line in lines) == 3


def test_every_figure_of_the_report_is_drawn(told: Path) -> None:
    pictures = {picture.name.partition("-")[2]: picture for picture in run_pictures(load_run(told), "arm-x")}
    failed = {name: picture.problem for name, picture in pictures.items() if picture.figure is None}
    assert not failed, failed


@pytest.mark.parametrize("model", ["gpt2", "bert"])
def test_the_bytes_held_are_those_of_the_units_that_have_weights(model: str, tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"model": model, "units": "sublayers"})
    env.reset(seed=0)
    sizes = []
    for action in ([0, 1, 2, 3, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 0, 0, 0, 0]):
        info = env.step(np.array(action))[4]
        memory = env.trainer.memory()
        assert memory.weights == 4 * info["trainable_parameters"] and memory.optimizer_state == 2 * memory.weights
        sizes.append(memory.weights)
    # By hand, width 16 and 4-byte numbers: of GPT-2 and BERT three attentions and three feed-forward parts less.
    attention, feed_forward = 4 * (16 * 16 + 16) + 2 * 16, 2 * 16 * 64 + 64 + 16 + 2 * 16
    assert [sizes[0] - size for size in sizes[1:]] == [3 * 4 * attention, 3 * 4 * feed_forward]
