"""The command that measures alignment and writes orders, the figure, and why the order means nothing to a tying."""

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from tying_agents.commands.align import main

from tests.conftest import TINY
from tests.tiny_runs import tiny_run
from tying_env.alignment import measure_alignment
from tying_env.alignment.parts import blocks_of
from tying_env.env import LayerTyingEnv
from tying_env.export import load_export
from tying_env.primary.models import with_units
from tying_env.reports.alignment_figure import alignment
from tying_env.reports.drawing import as_png
from tying_env.reports.loading import load_run
from tying_env.runs import load_run as read_run
from tying_env.seeding import numpy_stream

ORDERS = ("stored", "permuted", "matched")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    """A run of four layers, of which the two in the middle are one."""
    return tiny_run(tmp_path_factory.mktemp("align") / "run", text_folder, dtype="float64", dropout=0.0)


@pytest.fixture(scope="module")
def orders(finished: Path) -> Path:
    out = finished.parent / "orders"
    assert main([str(finished), "--orders", *ORDERS, "--seed", "1", "--out", str(out)]) == 0
    return out


def perplexities(orders: Path, order: str, text_folder: Path, first_tying: str) -> list[float]:
    """Train a checkpoint with layer 0 alone, then tied: what each decision comes to."""
    settings: dict[str, Any] = TINY | {"dataset": str(text_folder), "dtype": "float64", "dropout": 0.0}
    settings |= {"init_from": str(orders / order), "first_tying": first_tying, "total_steps": 8}
    env = LayerTyingEnv(**settings | {"reward_timing": "after_tying", "validate_every": 0})
    env.reset(seed=3)
    return [env.step(np.array(action))[4]["perplexity"] for action in ([0, 0, 2, 2], [0, 1, 1, 0], [0, 1, 2, 3])]


def test_a_tying_takes_the_order_along_and_a_mean_needs_it(orders: Path, text_folder: Path) -> None:
    found = {
        (order, way): perplexities(orders, order, text_folder, way)
        for order, way in (("stored", "leader"), ("permuted", "leader"), ("stored", "mean"), ("permuted", "mean"))
    }
    np.testing.assert_allclose(found["permuted", "leader"], found["stored", "leader"], rtol=1e-6)
    assert abs(found["permuted", "mean"][0] / found["stored", "mean"][0] - 1) > 1e-4


def test_orders_are_checkpoints_of_the_same_function(orders: Path, finished: Path, capsys: Any) -> None:
    tokens = torch.arange(8)[None]
    models = [load_export(orders / order).model.double() for order in ORDERS]
    logits = [model(tokens).logits for model in models]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=0, atol=1e-8)
    weights = [dict(model.named_parameters())["transformer.h.2.mlp.c_fc.weight"] for model in models]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert '"order": "permuted"' in (orders / "permuted" / "README.md").read_text(encoding="utf-8")
    assert main([str(finished), "--orders", "stored", "--out", str(orders)]) == 1
    assert "exists already" in capsys.readouterr().out


def test_whole_layers_are_moved(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "moved"
    assert main([str(finished), "--orders", "stored", "moved", "--seed", "2", "--out", str(out)]) == 0
    before, after = (load_export(out / name).saved.network.blocks for name in ("stored", "moved"))
    order = numpy_stream(2, "order of layers").permutation(4)
    assert order.tolist() != [0, 1, 2, 3]
    for block, source in zip(after, order.tolist(), strict=True):
        for (name, p), expected in zip(block.named_parameters(), before[source].parameters(), strict=True):
            torch.testing.assert_close(p, expected, rtol=0, atol=0, msg=name)
    assert '"order": "moved"' in (out / "moved" / "README.md").read_text(encoding="utf-8")


def test_the_command_prints_what_each_matching_comes_to(finished: Path, capsys: Any) -> None:
    assert main([str(finished), "--network", "final", "--draws", "2"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "3 pairs of layers" in printed  # the two in the middle are one
    for words in ("attention heads", "feed-forward units", "channels", "best", "chance", "equal", "random"):
        assert words in printed


@pytest.mark.parametrize(("agent", "kind"), [("shared-feed-forward", "heads"), ("shared-attention", "units")])
def test_of_parts_that_are_tied_apart_only_those_that_are_not_shared_are_compared(
    agent: str, kind: Any, tmp_path: Path, text_folder: Path, capsys: Any
) -> None:
    run = tiny_run(tmp_path / "run", text_folder, agent, units="sublayers")
    assert main([str(run), "--network", "final", "--draws", "2"]) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = [row for row in rows if row]
    values = {row[0].strip(","): (row[2], after[0]) for row, after in itertools.pairwise(rows) if row[1]}
    blocks = read_run(run, "final").saved.network.blocks
    mean = measure_alignment(blocks, np.random.default_rng(0), 2, (kind,))[kind].optimal[np.triu_indices(4, 1)].mean()
    names = {"heads": "attention heads", "units": "feed-forward units"}
    assert values.pop(names[kind]) == (f"{mean:+.3f}", "6 pairs of layers")
    assert set(values.values()) == {("-", "0 pairs of layers")}  # the other part, and channels, which read both


def test_many_networks_are_written_as_a_table(
    finished: Path, orders: Path, tmp_path: Path, text_folder: Path, capsys: Any
) -> None:
    other = tiny_run(tmp_path / "runs/other", text_folder, "conventional", validate_every=0)
    out = tmp_path / "deep" / "aligned"
    words = [str(finished), str(orders / "permuted"), str(tmp_path / "runs"), "--draws", "2"]
    assert main([*words, "--out", str(out)]) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert f"{other},finalnetwork" in printed and f"{finished},bestnetwork" in printed  # the first never validated
    with (out / "alignment.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["seed"], row["network"], row["part"]) for row in rows[::3]] == [
        ("sandwich", "1", "best", "heads"),
        ("orders/permuted", "", "best", "heads"),
        ("conventional", "1", "final", "heads"),
    ]
    assert [row["pairs_of_layers"] for row in rows] == ["3"] * 3 + ["6"] * 6
    # As measured by hand: of the four layers of another run no two share anything.
    blocks = read_run(other, "final").saved.network.blocks
    found = measure_alignment(blocks, numpy_stream(0, "matchings"), 2)["units"]
    assert float(rows[7]["equal_places"]) == pytest.approx(found.identity[np.triu_indices(4, 1)].mean(), rel=1e-4)
    assert float(rows[7]["best_matching"]) == pytest.approx(found.optimal[np.triu_indices(4, 1)].mean(), rel=1e-4)
    page = (out / "alignment.md").read_text(encoding="utf-8")
    assert (
        f"| conventional | 1 | final | feed-forward units | 64 | 6 | {float(rows[7]['best_matching']):+.3f} |" in page
    )
    assert main([*words, "--out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().out
    assert main([str(tmp_path), "--orders", "stored", "--out", str(tmp_path / "no")]) == 0  # it holds one run
    albert = tiny_run(tmp_path / "runs/albert", text_folder, "albert", n_layer=2)
    assert main([*words, "--out", str(tmp_path / "none")]) == 1
    printed = "".join(capsys.readouterr().out.split())
    assert f"{albert}:thereisonesetofweightsforalllayers" in printed
    assert not (tmp_path / "none").exists()
    assert main([str(tmp_path / "runs"), "--orders", "stored", "--out", str(tmp_path / "none")]) == 1
    assert "--orders is for one run, and" in " ".join(capsys.readouterr().out.split())


def test_blocks_of_a_network_with_units_of_its_own_are_found_or_it_is_refused() -> None:
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=4, n_embd=4, n_layer=2, n_head=2))
    units = {
        "attention": [f"transformer.h.{i}.attn" for i in (0, 1)],
        "mlp": [f"transformer.h.{i}.mlp" for i in (0, 1)],
    }
    assert blocks_of(with_units(model, (), units)) == list(model.transformer.h)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"units are of its user's own choice \(a\), and blocks, .* are not found"):
        blocks_of(with_units(model, (), {"a": ["0", "1"]}))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--orders", "stored"], "--orders needs --out"),
        (["other", "--orders", "stored", "--out", "x"], "--orders is for one run, got 2"),
        (["--orders", "stored", "stored", "--out", "x"], "orders must be different ones"),
        (["--draws", "0"], "draws must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(words: list[str], said: str, finished: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main([str(finished), *words])
    captured = capsys.readouterr()
    assert said in " ".join((captured.out + captured.err).replace("│", " ").split())


def test_the_figure_shows_heads_units_and_channels_beyond_chance(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = alignment(load_run(finished))
    as_png(figure, dpi=40)
    maps = [axes for axes in figure.axes if axes.images and axes.get_xlabel() == "layer"]
    assert [axes.get_title().split("\n")[0] for axes in maps] == [
        *("2 attention heads, best matching", "64 feed-forward units, best matching", "16 channels, best matching"),
        *["in equal places"] * 3,
    ]
    for axes in maps:
        values = np.asarray(axes.images[0].get_array())
        assert values.shape == (4, 4) and axes.get_ylabel() == "layer"
        np.testing.assert_allclose(values, values.T)
        np.testing.assert_allclose([values[1, 2], values[0, 0]], 1)  # one set of weights
        assert values[0, 3] < 0.9
    best = np.asarray(maps[1].images[0].get_array())
    assert best[0, 3] == pytest.approx(0, abs=0.05)  # hardly trained: chance
    monkeypatch.setattr("tying_env.reports.alignment_figure._MOST", 10)
    with pytest.raises(ValueError, match="3 layers with 64 units each take too long for a report: layer-tying align"):
        alignment(load_run(finished))


def test_a_figure_of_a_run_without_a_final_network_is_of_its_best(finished: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished, tmp_path / "broken")
    (tmp_path / "broken/final.safetensors").unlink()
    assert alignment(load_run(tmp_path / "broken")).axes
    (tmp_path / "broken/best.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no network file"):
        alignment(load_run(tmp_path / "broken"))


def test_one_set_of_weights_has_nothing_to_be_aligned_with(tmp_path: Path, text_folder: Path, capsys: Any) -> None:
    run = tiny_run(tmp_path / "run", text_folder, "albert", n_layer=2)
    assert main([str(run)]) == 1
    assert "one set of weights for all layers" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="all layers share one set of weights"):
        alignment(load_run(run))
