"""Pruning: which weights go, of networks whose layers share them, and what is left behind."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from tying_agents.commands import start
from tying_agents.compressing.pruned_runs import PrunedResult, as_markdown, draw_by_group

from tests.tiny_runs import tiny_run
from tying_env.compression.pruning import (
    Pruning,
    gathered_norms,
    input_norms,
    left_alone,
    linears_of,
    prune,
    pruned_places,
    scores,
)
from tying_env.export import load_export, load_tied
from tying_env.primary.evaluation import Evaluation
from tying_env.primary.models import PrimaryNetwork
from tying_env.reports.statistics import mean_interval
from tying_env.runs import LoadedRun, load_run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> MakeRun:
    """Return what trains a tiny network for a few steps, on texts that are measured whole in no time."""
    short = tmp_path_factory.mktemp("short")
    for text in text_folder.iterdir():
        (short / text.name).write_text(text.read_text(encoding="utf-8")[:2000], encoding="utf-8")

    def made(agent: str = "sandwich", **settings: Any) -> Path:
        return tiny_run(tmp_path_factory.mktemp("run") / agent, short, agent, **settings)

    return made


@pytest.fixture(scope="module")
def sandwich(make_run: MakeRun) -> Path:
    """Four layers, of which the two in the middle are one."""
    return make_run()


def inputs_by_hand(loaded: LoadedRun, examples: int) -> dict[tuple[int, str], Tensor]:
    """Return what went into each linear layer of a GPT-2, (positions, inputs), by layer and name."""
    seen: dict[tuple[int, str], list[Tensor]] = {}
    model: Any = loaded.model
    handles = []
    for layer, block in enumerate(model.transformer.h):
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):

            def hook(_: nn.Module, args: Any, key: tuple[int, str] = (layer, name)) -> None:
                seen.setdefault(key, []).append(args[0].flatten(0, 1).clone())

            handles.append(block.get_submodule(name).register_forward_pre_hook(hook))
    workload = loaded.open_workload()
    batches = workload.training_batches(0)
    for _ in range(examples // workload.config.batch_size):
        windows = torch.as_tensor(batches.next_batch().astype("int64"))
        with torch.no_grad():
            model(input_ids=windows[:, :-1])
    for handle in handles:
        handle.remove()
    return {key: torch.cat(parts) for key, parts in seen.items()}


@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_the_norm_of_a_shared_weights_input_is_over_all_layers_that_use_it(make_run: MakeRun, gradient: str) -> None:
    loaded = load_run(make_run(gradient=gradient))
    assert loaded.tying.tolist() == [0, 1, 1, 3]
    linears = linears_of(loaded.saved.network)
    assert [linear.name for linear in linears if ".mlp.c_fc" in linear.name] == [
        f"transformer.h.{layer}.mlp.c_fc.weight" for layer in (0, 1, 3)
    ]
    random = torch.random.get_rng_state()
    norms = input_norms(loaded.model, linears, loaded.open_workload(), 8)
    assert torch.equal(torch.random.get_rng_state(), random)
    seen = inputs_by_hand(loaded, 8)
    for linear in linears:
        layer, name = int(linear.name.split(".")[2]), linear.name.split(".", 3)[3].removesuffix(".weight")
        users = [other for other in range(4) if loaded.tying[other] == layer]
        expected = torch.cat([seen[other, name] for other in users]).double().square().sum(0).sqrt()
        torch.testing.assert_close(norms[linear.name], expected, rtol=1e-6, atol=1e-9)
        # A Conv1D computes x @ W: its outputs are columns, and the score of W[i, o] has the norm of input i.
        weight: Any = loaded.model.get_parameter(linear.name)
        counted = weight.detach().abs() * norms[linear.name][:, None]
        torch.testing.assert_close(scores(linear, norms[linear.name]), counted.T)
    again = input_norms(loaded.model, linears, loaded.open_workload(), 8)
    assert all(torch.equal(again[name], norms[name]) for name in norms)  # the same examples each time


@pytest.mark.parametrize("method", ["wanda", "magnitude"])
def test_the_least_weights_of_every_output_go(sandwich: Path, method: Any) -> None:
    loaded = load_run(sandwich)
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    linears = linears_of(loaded.saved.network)
    norms = input_norms(loaded.model, linears, loaded.open_workload(), 8) if method == "wanda" else None
    prune(linears, norms, Pruning(0.3, method))
    pruned = {linear.name for linear in linears}
    for name, parameter in loaded.model.named_parameters():
        if name not in pruned:
            assert torch.equal(parameter, before[name]), name
            continue
        inputs, outputs = before[name].shape
        for output in range(outputs):  # one column of the Conv1D after another, by sorting
            column = before[name][:, output]
            count = [abs(float(w)) * (1 if norms is None else float(norms[name][i])) for i, w in enumerate(column)]
            gone = set(sorted(range(inputs), key=lambda place: (count[place], place))[: int(0.3 * inputs)])
            expected = [0.0 if place in gone else float(w) for place, w in enumerate(column)]
            assert parameter[:, output].tolist() == expected, (name, output)
    blocks: Any = loaded.model.transformer.h  # type: ignore[union-attr]
    assert blocks[1].mlp.c_fc.weight.data_ptr() == blocks[2].mlp.c_fc.weight.data_ptr()
    assert (blocks[2].mlp.c_fc.weight == 0).any()


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.25, 0.5, 0.7, 0.99])
def test_every_row_has_exactly_its_share_of_zeros(sparsity: float) -> None:
    drawn = torch.rand(7, 10, generator=torch.Generator().manual_seed(0))
    for numbers in (drawn, torch.zeros(7, 10), drawn.round(decimals=1)):  # equal scores, too
        places = pruned_places(numbers, Pruning(sparsity))
        assert places.sum(1).tolist() == [{0.0: 0, 0.1: 1, 0.25: 2, 0.5: 5, 0.7: 7, 0.99: 9}[sparsity]] * 7
        for row, gone in zip(numbers, places, strict=True):
            assert not gone.any() or gone.all() or row[gone].max() <= row[~gone].min()


def test_two_of_every_four_inputs_of_an_output_go() -> None:
    numbers = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 9.0, 8.0, 0.0], [1.0, 1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 4.0]])
    assert pruned_places(numbers, Pruning(0.5, pattern="2:4")).int().tolist() == [
        [0, 0, 1, 1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1, 0, 0, 1],
    ]


def test_what_is_not_possible_is_refused_with_its_value(make_run: MakeRun) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sparsity": 1.0}, "sparsity must be at least 0 and below 1, got 1.0"),
        ({"sparsity": -0.1}, "sparsity must be at least 0 and below 1, got -0.1"),
        ({"sparsity": float("nan")}, "got nan"),
        ({"sparsity": 0.25, "pattern": "2:4"}, "the pattern 2:4 has a sparsity of 0.5, got 0.25"),
        ({"pattern": "1:4"}, "pattern must be one of unstructured, 2:4, got '1:4'"),
        ({"method": "random"}, "method must be one of wanda, magnitude, got 'random'"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
    ]
    for settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            Pruning(**settings)
    loaded = load_run(make_run(n_embd=6, n_head=2))
    linears = linears_of(loaded.saved.network)
    before = [linear.weight.clone() for linear in linears]
    with pytest.raises(ValueError, match=r"'transformer\.h\.0\.attn\.c_\w+\.weight': .* a multiple of 4, got 6"):
        prune(linears, None, Pruning(0.5, "magnitude", "2:4"))
    with pytest.raises(ValueError, match="the method 'wanda' takes norms of inputs"):
        prune(linears, None, Pruning(0.5))
    assert all(torch.equal(linear.weight, weight) for linear, weight in zip(linears, before, strict=True))
    with pytest.raises(TypeError, match="low-rank deltas of their own"):
        linears_of(load_run(make_run(delta_rank=2)).saved.network)


class Attending(nn.Module):
    """A block with an attention of torch's, which computes with the weights of its linear layer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.feed = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.feed(self.attention(x, x, x)[0])


def network_of(*blocks: nn.Module) -> PrimaryNetwork:
    model = nn.Module()
    model.layers = nn.ModuleList(blocks)
    return PrimaryNetwork(model, ("layers",))


def test_a_weight_whose_input_is_not_seen_is_refused_by_name_and_others_are_named() -> None:
    block = Attending().train()
    network = network_of(block)
    linears = linears_of(network)
    assert [linear.name for linear in linears] == ["layers.0.attention.out_proj.weight", "layers.0.feed.weight"]
    assert left_alone(network, linears) == ["layers.0.attention.in_proj_weight"]
    with (
        pytest.raises(ValueError, match=r"through the module of 'layers\.0\.attention\.out_proj\.weight'"),
        gathered_norms(linears),
    ):
        block(torch.randn(2, 3, 4))
    assert not block.feed._forward_pre_hooks  # nothing stays behind
    with pytest.raises(ValueError, match=r"inputs of 'layers\.0\.weight' are not finite"):
        bare = network_of(nn.Linear(2, 2))
        with gathered_norms(linears_of(bare)):
            bare.blocks[0](torch.full((1, 2), torch.inf))
    with pytest.raises(ValueError, match="have no linear layers"):
        linears_of(network_of(nn.LayerNorm(4)))


def test_weights_that_are_parts_of_one_memory_are_weights_each() -> None:
    memory, block = torch.randn(2, 3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for linear, part in zip(block, memory, strict=True):
        linear.weight = nn.Parameter(part)  # type: ignore[assignment]
    assert [linear.name for linear in linears_of(network_of(block))] == ["layers.0.0.weight", "layers.0.1.weight"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["--pattern", "2:4"]),
        ({"model": "bert"}, ["--method", "magnitude"]),
        ({"model": "llama", "n_kv_head": 1}, []),
        ({"model": "vit", "dataset": "digits", "patch_size": 4}, []),
        ({"residual_scale": "sqrt"}, ["--dense"]),
    ],
)
def test_the_command_leaves_an_export_of_the_pruned_network(
    make_run: MakeRun, tmp_path: Path, settings: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(**settings)
    arguments = [str(folder), "--examples", "8", "--out", str(tmp_path / "out"), *words]
    assert start("prune", arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    loaded = load_export(tmp_path / "out")
    linears = linears_of(loaded.saved.network)
    zeros = sum(int((linear.weight == 0).sum()) for linear in linears)
    total = sum(linear.weight.numel() for linear in linears)
    assert zeros == total // 2
    if "--dense" not in words:
        assert f"{zeros:,} of the {total:,} weights of the blocks' linear layers are 0" in printed
        assert torch.equal(load_tied(tmp_path / "out").get_parameter(linears[0].name), linears[0].weight)
    assert "test perplexity" in printed or "test accuracy" in printed
    card = (tmp_path / "out" / "README.md").read_text()
    assert '"pruning": {' in card and '"zeros":' in card
    after = loaded.open_workload(str(settings.get("dataset") or load_run(folder).config.dataset)).evaluate(
        loaded.model, "test", 0, torch.device("cpu")
    )
    assert f"| perplexity | {after.perplexity:,.6g} |" in card or settings.get("residual_scale")
    assert start("prune", arguments) == 1
    assert "exists already" in capsys.readouterr().out


def test_an_export_is_measured_on_as_much_as_was_asked_for(sandwich: Path, tmp_path: Path, capsys: Any) -> None:
    assert start("prune", [str(sandwich), "--examples", "8", "--windows", "4", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    run = load_run(sandwich)
    few = run.open_workload().evaluate(run.model, "test", 4, torch.device("cpu"))
    assert "4 sequences of each split" in " ".join(printed.split()) and f" {few.perplexity:,.3f} " in printed


@pytest.mark.parametrize("label", ["[/]", "[red]x", "$a_b", "_a|b"])
def test_a_label_is_no_markup(sandwich: Path, tmp_path: Path, label: str, capsys: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(sandwich, run)
    about = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(about | {"label": label}))
    words = [str(run), "--sparsity", "0.25", "0.5", "--examples", "8", "--windows", "4", "--out", str(tmp_path / "out")]
    assert start("prune", words) == 0, capsys.readouterr().out
    assert f"| {label.replace('|', chr(92) + '|')} |" in (tmp_path / "out" / "pruning.md").read_text()


def test_runs_side_by_side_make_a_table_and_a_figure(
    make_run: MakeRun, sandwich: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run("conventional")
    words = [str(sandwich), str(other), "--sparsity", "0.25", "0.5", "--method", "wanda", "magnitude"]
    out = tmp_path / "table"
    names = {f"{what}.{end}" for what in ("pruning", "pruning_groups") for end in ("png", "svg")}
    names |= {"pruning.csv", "pruning.md"}
    out.mkdir()
    for name in names:
        (out / name).write_text("old")
    assert start("prune", [*words, "--examples", "8", "--windows", "8", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == names
    assert all(path.stat().st_size > 100 for path in out.iterdir())  # those of before are replaced
    with (out / "pruning.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 4)
    assert [row["zeros"] for row in rows[:5]] == ["0", "0.25", "0.5", "0.25", "0.5"]
    assert {(row["label"], row["independent_units"], row["largest_group"]) for row in rows} == {
        ("sandwich", "3", "2"),
        ("conventional", "4", "1"),
    }
    # The row of a way is what pruning alone in that way comes to: nothing of the ways before it is left.
    loaded = load_run(sandwich)
    linears = linears_of(loaded.saved.network)
    prune(linears, None, Pruning(0.5, "magnitude"))
    alone = loaded.open_workload().evaluate(loaded.model, "test", 8, torch.device("cpu")).perplexity
    assert float(rows[4]["test_perplexity"]) == pytest.approx(alone, rel=1e-5)
    table = (out / "pruning.md").read_text()
    assert "| sandwich | 3 of 4 | 2 | magnitude | unstructured | 0.5 |" in table and "Token frequencies alone:" in table
    capsys.readouterr()
    for more, message in (
        (["--dense"], "--dense is for the export of one run"),
        (["--sparsity", "0.5", "1"], "sparsity must be at least 0 and below 1, got 1"),
        (["--pattern", "2:4"], "the pattern 2:4 has a sparsity of 0.5, got 0.25"),
        (["--windows", "-1"], "windows must be at least 0"),
    ):
        assert start("prune", [*words, *more, "--out", str(tmp_path / "no")]) == 1
        assert message in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "no").exists()


def result(
    label: str, seed: int, largest: int, method: str, sparsity: float, perplexity: float, run: str
) -> PrunedResult:
    test = Evaluation(math.log(perplexity), perplexity, None, 8)
    pattern = "unstructured" if method else ""
    return PrunedResult(
        Path(run), label, seed, 4 // largest, 4, largest, method, pattern, sparsity, sparsity, test, None
    )


def made_results() -> list[PrunedResult]:
    """Return those of arms with groups of 1, 2 and 4, of seeds 0 and 1, and seed 1 of the first a second time."""
    runs = [("one", 0, 1), ("one", 1, 1), ("one", 1, 1), ("two", 0, 2), ("two", 1, 2), ("four", 0, 4), ("four", 1, 4)]
    found = []
    for number, (label, seed, largest) in enumerate(runs):
        for method, sparsity, rise in (("", 0, 0), ("wanda", 0.25, 0), ("wanda", 0.6, largest), ("magnitude", 0.6, 2)):
            after = 10 * (1 + (rise * (1 + seed) if method else 0) / 100)
            found.append(result(label, seed, largest, method, sparsity, after, f"run{number}"))
    return found


def test_the_table_counts_seeds_and_sets_arms_against_the_smallest_groups() -> None:
    rows = [line.strip("| ").split(" | ") for line in as_markdown(made_results()).splitlines()]
    assert rows[0][8:] == ["against one, points [95%]", "seeds"]
    found = {(row[0], row[3], row[5]): row[7:] for row in rows[2:]}
    assert found["one", "wanda", "0.6"] == ["+1.50%", "–", "2"]  # three runs of two seeds
    interval = mean_interval([4.0 - 1, 8.0 - 2])  # in points, seed by seed
    assert found["four", "wanda", "0.6"] == ["+6.00%", f"+4.50 [{interval.low:+.2f}, {interval.high:+.2f}]", "2"]
    assert found["two", "magnitude", "0.6"][1] == "+0.00"  # 2 - 2, 4 - 4: nothing to draw an interval from


def test_a_figure_shows_what_the_size_of_a_group_costs() -> None:
    figure = draw_by_group(made_results())
    assert figure is not None
    axes = figure.axes[0]
    assert "0.6 of" in axes.get_title()  # nearest to a half
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["wanda"] == pytest.approx(np.array([[1, 5 / 3], [2, 3], [4, 6]]))
    points = [line for line in axes.lines if line.get_marker() != "None"]
    assert [len(line.get_xdata()) for line in points] == [7, 7]
    assert draw_by_group([each for each in made_results() if each.label == "two"]) is None
