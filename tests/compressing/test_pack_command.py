"""The command that packs: one run into a file, or a table and a figure of several; and what reads such files."""

import csv
from pathlib import Path

import pytest
import torch
import transformers
from tying_agents.commands import start
from tying_agents.compressing.packed_runs import PackedResult, Way, as_markdown

from tests.compressing.conftest import MakeRun
from tying_env.compression import load_packed, open_packed, pack_network
from tying_env.primary.evaluation import Evaluation
from tying_env.runs import LoadedRun


def test_the_command_packs_and_tells_what_became_of_the_predictions(
    tmp_path: Path, sandwich: LoadedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(sandwich.path), "--max-bytes", "16000", "--windows", "8", "--out", str(tmp_path / "net.packed")]
    assert start("pack", [*words, "--test-windows", "-1"]) == 1
    assert "test_windows must be at least 0, got -1" in capsys.readouterr().out
    assert start("pack", [*words, "--test-windows", "4"]) == 0
    out = capsys.readouterr().out
    few = sandwich.open_workload().evaluate(sandwich.model, "test", 4, torch.device("cpu"))
    assert "4 sequences of each split" in " ".join(out.split()) and f" {few.perplexity:,.3f} " in out
    size = (tmp_path / "net.packed").stat().st_size
    assert f"{size:,} of 16,000 bytes" in " ".join(out.split()) and size <= 16_000
    for text in ("layers 1-2", "validation perplexity", "test bits per byte", "frequencies alone"):
        assert text in out
    assert isinstance(load_packed(tmp_path / "net.packed"), transformers.GPT2LMHeadModel)
    assert start("pack", words) == 1
    assert "exists already" in capsys.readouterr().out
    assert start("pack", [*words[:-1], str(tmp_path / "no"), "--dataset", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().out
    assert start("pack", [str(sandwich.path), "--max-bytes", "10", "--out", str(tmp_path / "no")]) == 1
    assert "the smallest file possible of this network takes" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "no").exists()


def test_runs_side_by_side_make_tables_and_a_figure(
    tmp_path: Path, make_run: MakeRun, sandwich: LoadedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    albert = make_run("albert")
    words = [str(sandwich.path), str(albert.path), "--windows", "8", "--test-windows", "4"]
    out = tmp_path / "table"
    names = {"packing.csv", "packing.md", "packing_parts.csv", "packing.png", "packing.svg"}
    out.mkdir()
    for name in names:
        (out / name).write_text("old")
    assert start("pack", [*words, "--max-bytes", "9000", "20000", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == names
    assert all(path.stat().st_size > 100 for path in out.iterdir())  # those of before are replaced
    with (out / "packing.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["max_bytes"], row["fits"]) for row in rows] == [
        ("sandwich", "9000", "0"),
        ("sandwich", "20000", "1"),
        ("albert", "9000", "1"),
        ("albert", "20000", "1"),
    ]
    # The row is what packing alone comes to; of what does not fit it has the bytes of the smallest file.
    packed = pack_network(sandwich, tmp_path / "alone", 20_000, windows=8)
    workload, device = sandwich.open_workload(), torch.device("cpu")
    assert rows[1]["bytes"] == str(packed.size)
    for column, model in (("test_bits", load_packed(packed.path)), ("test_bits_before", sandwich.model)):
        assert float(rows[1][column]) == pytest.approx(workload.evaluate(model, "test", 4, device).bits_per_byte, 1e-5)
    with pytest.raises(ValueError, match=f"takes {int(rows[0]['bytes']):,}"):
        pack_network(sandwich, tmp_path / "no", 9_000)
    with (out / "packing_parts.csv").open() as file:
        parts = [row for row in csv.DictReader(file) if row["label"] == "sandwich"]
    found = {part.unit.name: part for part in packed.units}
    assert [(row["part"], row["uses"]) for row in parts][2:] == [
        ("layer 0", "1"),
        ("layers 1-2", "2"),
        ("layer 3", "1"),
    ]
    for row in parts:
        part = found[row["part"]]
        assert (int(row["bits"]), int(row["bytes"])) == (part.bits, part.choices[part.bits].size)
        assert float(row["nats_at_4"]) == pytest.approx(part.choices[4].rise, rel=1e-4)
    page = (out / "packing.md").read_text()
    mean = sum(found[name].choices[4].rise for name in ("layer 0", "layer 3")) / 2
    assert "| sandwich | 1 | 2 | " in page and f" {mean:+.5f} |" in page and "| albert | 4 | 1 | " in page
    assert f"does not fit: at least {int(rows[0]['bytes']):,}" in page and "bits/byte before" in page
    capsys.readouterr()
    assert start("pack", [*words, "--bits", "4", "8", "--out", str(tmp_path / "bits")]) == 0
    assert "| sandwich | 1 | 3 of 4 | 8 bits |" in capsys.readouterr().out
    for more, message in (
        (["--max-bytes", "10"], "no network fits in 10 bytes: the smallest file possible of any takes"),
        (["--max-bytes", "20", "10"], "no network fits in 10 or 20 bytes"),
        (["--max-bytes", "0"], "max_bytes must be at least 1, got 0"),
        (["--windows", "-1"], "windows must be at least 0, got -1"),
    ):
        assert start("pack", [*words, *more, "--out", str(tmp_path / "no")]) == 1
        assert message in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "no").exists()


def packed(label: str, seed: int, max_bytes: int, after: float | None) -> PackedResult:
    before, later = Evaluation(1.0, 9.0, 3.0, 8), None if after is None else Evaluation(1.0, 9.0, after, 8)
    about = (Path(f"{label}{seed}"), label, seed, 3, 4, Way(max_bytes), 50)
    return PackedResult(*about, (), before, later, 20.0, "bits/byte")


def test_means_are_over_the_seeds_that_fit_and_limits_in_their_order() -> None:
    results = [packed("one", seed, limit, 3.0 + seed + limit / 1e5) for seed in (0, 1) for limit in (10_000, 2_000)]
    results += [packed("two", 0, 10_000, 3.5), packed("two", 1, 10_000, None), packed("two", 0, 2_000, None)]
    lines = as_markdown(results).splitlines()
    assert lines[-3:] == [
        "|" + " --- |" * 5,
        "| one | 2 | 3.0000 | 3.5200 | 3.6000 |",
        "| two | 2 | 3.0000 | – | 3.5000 (1 of 2) |",
    ]
    assert lines[-4] == "| arm | seeds | before | 2,000 bytes | 10,000 bytes |"
    assert "Means over seeds" not in as_markdown(results[:2])


def test_a_packed_file_is_measured_and_continues_a_text_as_the_network_in_it(
    tmp_path: Path, sandwich: LoadedRun, text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pack_network(sandwich, tmp_path / "net.packed", bits=4).path
    workload, words = open_packed(path).open_workload(str(text_folder)), ["--dataset", str(text_folder)]
    expected = workload.evaluate(load_packed(path), "validation", 8, torch.device("cpu")).perplexity
    assert start("evaluate", [str(path), *words, "--split", "validation", "--windows", "8"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"perplexity │ {expected:,.2f}" in out and "│ 3 of 4" in out
    assert start("generate", [str(path), "--prompt", "of", "--tokens", "4", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("of")
    for command, words in (("pack", ["--out"]), ("prune", ["--out"]), ("export", [])):
        assert start(command, [str(path), *words, str(tmp_path / "no")]) == 1
        assert "is a packed network, rounded already" in " ".join(capsys.readouterr().out.split())
    assert start("evaluate", [str(path)]) == 1
    assert "does not say where the data are" in " ".join(capsys.readouterr().out.split())
    assert start("evaluate", [str(path), "--network", "final"]) == 1
    assert "which has one network" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-1])
    assert start("evaluate", [str(path)]) == 1
    assert "is cut short" in capsys.readouterr().out
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("command", ["pack", "prune"])
def test_results_in_other_units_stand_in_no_table(
    command: str, sandwich: LoadedRun, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = make_run(model="bert")
    assert start(command, [str(sandwich.path), str(bert.path), "--out", str(tmp_path / "out")]) == 1
    said = " ".join(capsys.readouterr().out.split())
    one = "bits/byte" if command == "pack" else "per byte"
    assert f"{sandwich.path} are {one}, those of {bert.path} per hidden byte. Make a table for each" in said
    assert not (tmp_path / "out").exists()


def test_networks_without_bits_are_compared_by_perplexity(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run(model="bert"), make_run(model="bert", seed=2)
    faster = make_run(model="bert", learning_rate=0.05)  # an arm of its own, as in a comparison
    words = [
        *(str(each.path) for each in (run, other, faster)),
        "--windows",
        "4",
        "--test-windows",
        "4",
        "--max-bytes",
        "50000",
    ]
    assert start("pack", [*words, "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/packing.md").read_text(encoding="utf-8")
    assert "Means over seeds, test perplexity;" in page
    with (tmp_path / "out/packing.csv").open() as file:
        before = {row["run"]: float(row["test_perplexity_before"]) for row in csv.DictReader(file)}
    mean = (before[str(run.path)] + before[str(other.path)]) / 2
    rows = page.split("Means over seeds")[1].splitlines()[4:6]
    found = [row.strip("| ").split(" | ") for row in rows]
    assert [row[:2] for row in found] == [["sandwich", "2"], ["sandwich (learning_rate 0.05)", "1"]]
    assert [float(row[2]) for row in found] == pytest.approx([mean, before[str(faster.path)]], rel=1e-4)
