"""The benchmark runs from end to end at a tiny size; what it times is not checked here, what it counts is."""

import dataclasses
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from rich.console import Console
from tying_agents.benchmarks import growth, measurements, memory, speed
from tying_agents.benchmarks.all import MEASUREMENTS
from tying_agents.benchmarks.many import settings_of
from tying_agents.benchmarks.measurements import compare_step
from tying_agents.benchmarks.settings import BenchmarkSizes, ManyNetworks, MemorySizes
from tying_agents.benchmarks.showing import required_of, to_table
from tying_agents.benchmarks.turns import RATIO, tell_ratio, to_rows

from tests.command_line import called
from tests.tables import made_up_table, written
from tying_env import EnvConfig
from tying_env.primary.kernels import attention, feed_forward, head

SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark.py"
N_LAYER, WIDTH, SEQ_LEN, VOCABULARY = 4, 16, 16, 50257
TINY = [
    *("--repeats", "1", "--threads", "1", "--device", "cpu", "--k", "2", "--batch-size", "2", "--n-head", "2"),
    *("--n-layer", str(N_LAYER), "--n-embd", str(WIDTH), "--wide-n-embd", "32", "--seq-len", str(SEQ_LEN)),
    *("--paper-n-layer", "2", "--leaders", "1", "--numbers", "2"),
    *("--growing-vocabularies", "256", "--growing-processes", "1"),
    *("--growing-layers", "4", "--growing-widths", "16", "--growing-lengths", "16", "--growing-groups", "2"),
    *("--reuse-lengths", "16", "--vocabularies", "512", "256"),
    *("--single-steps", "20", "--batch-sizes", "3", "--batched-steps", "2"),
]
# All but the options, which would be compiled.
MEASURED = [
    *("step", "head", "tying", "parts", "change", "dqn", "plain", "where", "growth", "reuse", "start", "vector"),
    *("table", "memory"),
]


def benchmark(*options: str) -> subprocess.CompletedProcess[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return called("benchmark", *words(*options))


def words(*options: str) -> list[str]:
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), options))  # measurements come first
    return [*named, *TINY, *options[len(named) :]]


def run_here(command: Sequence[str], **_: Any) -> None:
    """Stand in for `subprocess.run`: run the command here, which an interpreter would import for first."""
    interpreter, option, module, *given = command
    assert (interpreter, option, module) == (sys.executable, "-m", "tying_env")  # test_readme.py starts that
    called(*given).check_returncode()


@pytest.fixture(scope="module", autouse=True)
def short_turns() -> Iterator[None]:
    """Do the same thing a few times in one turn: what is timed is not checked."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((speed, "STEPS"), (growth, "DECISIONS"), (measurements, "DECISIONS")):
            assert getattr(module, name) > 1
            patch.setattr(module, name, 1)
        yield


@pytest.fixture(scope="module")
def result(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run of everything writes."""
    file = tmp_path_factory.mktemp("benchmark") / "all.json"
    figure = file.with_suffix(".png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "subprocess", SimpleNamespace(run=run_here))
        # Following an operation costs the same whatever its size: a few large ones.
        patch.setattr(attention, "ROWS", 256)
        patch.setitem(head.CHUNK_ROWS, "cpu", 4096)
        run = benchmark(*MEASURED, "--dataset", str(text_folder), "--json", str(file), "--figure", str(figure))
    assert figure.stat().st_size > 10_000
    assert run.returncode == 0, run.stdout + run.stderr
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def rows_of(result: dict[str, Any], measurement: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["measurements"][measurement]}


def test_every_measurement_has_its_arms(result: dict[str, Any]) -> None:
    arms = {name: len(rows) for name, rows in result["measurements"].items()}
    plain = 2 * 2 * (10 if torch.backends.mkldnn.is_available() else 7)  # with oneDNN's products and with torch's own
    assert arms == dict(
        **{
            "step": 4,
            "head": 5,
            "tying": 6,
            "parts": 3 * 2,  # tyings; the batch of two in one and in two
            "change": 6,
            "dqn": 6,
            "plain": plain,
            "where": 7,
            "growth": 9 + 4 * 6 + 1,
            "reuse": 6,
        },
        **{"start": 3, "vector": 4, "table": 3, "memory": 2 * 2 * 5 * 12},
    )


def test_all_numbers_are_positive_and_finite(result: dict[str, Any]) -> None:
    for rows in result["measurements"].values():
        for row in rows:
            # at the peak no gradient need be there; parts measured alone may take longer than all together
            least = 0 if row["unit"] == "bytes" or row["name"].startswith("the rest") else 1e-9
            assert least <= row["min"] <= row["median"] <= row["max"] < math.inf, row
            assert row["ratio"] is None or 0 <= row["ratio"] < math.inf, row


def test_every_ratio_is_to_a_row_of_the_same_measurement_and_unit(result: dict[str, Any]) -> None:
    for measurement in result["measurements"]:
        rows = rows_of(result, measurement)
        for row in rows.values():
            assert (row["ratio"] is None) == (row["against"] is None), row
            if row["against"] is not None and row["unit"] != "bytes":
                base = rows[row["against"]]
                assert base["unit"] == row["unit"]
                # Each turn's ratio lies between these, and so does their median.
                assert row["min"] / base["max"] <= row["ratio_min"] * (1 + 1e-9)
                assert row["ratio_max"] <= row["max"] / base["min"] * (1 + 1e-9)
            if row["ratio"] is not None:
                assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]


def test_a_ratio_whose_turns_vary_by_more_than_a_tenth_is_not_shown() -> None:
    speeds = {"base": [10.0, 20.0, 40.0], "steady": [11.0, 22.0, 44.0], "wild": [10.0, 22.0, 48.0]}
    shares = {"steady share": [0.80, 0.82, 0.84], "wild share": [0.70, 0.80, 0.90]}
    rows = to_rows(speeds, "tokens/s", "base") + to_rows(shares, RATIO)
    assert [(row.ratio_min, row.ratio_max) for row in rows[1:3]] == [(1.1, 1.1), (1.0, 1.2)]
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(to_table("", rows))
    shown = re.sub(r"[^\w%. \n]", "", console.export_text())
    assert re.search(r"steady +22 tokenss +11 .. 44 +1\.1 *\n", shown)
    assert re.search(r"wild +22 tokenss +10 .. 48 +varies by 18 % *\n", shown)
    assert re.search(r"steady share +0\.82 +", shown) and re.search(r"wild share +varies by 25 % +", shown)
    for required, told in (
        *(("at least 1", "at least 1: in every turn"), ("above 1", "above 1: in some turns")),
        *(("below 1", "below 1: in no turn"), ("at most 1.2", "at most 1.2: in every turn")),
        *(("at most 2 ms", "at most 2 ms"), (None, "")),
    ):
        assert required_of(rows[2]._replace(required=required)) == told
    assert required_of(rows[1]._replace(required="at least 2")) == "at least 2"  # the ratio is there to be read
    assert required_of(rows[-1]._replace(required="at least 0.95")) == "at least 0.95: in no turn"
    assert tell_ratio(0.0, 0.0, 0.0) == "0" and tell_ratio(0.0, 0.0, 1.0) == "varies by inf %"


def test_bytes_are_those_of_the_leaders_and_of_what_lies_outside_the_blocks(result: dict[str, Any]) -> None:
    found = rows_of(result, "memory")
    outside = (VOCABULARY + SEQ_LEN + 2) * WIDTH  # two embeddings, the final norm's scale and shift
    block = 12 * WIDTH**2 + 13 * WIDTH  # attention 4, MLP 8 matrices; their biases 4 + 5, two norms 4
    counters = 4 * 16  # AdamW's step of every tensor: 12 in a block, 4 outside
    for name, leaders in (
        ("conventional", N_LAYER),
        ("3 leaders, shared gradient", 3),
        ("3 leaders, leader's gradient", 3),
        ("frozen start, redrawn", 1),
    ):
        trained = 16 * (outside + leaders * block) + counters + 4 * 12 * (leaders - 1)
        for where in ("measured", "measured, checkpointed"):
            row = found[f"{N_LAYER} x {WIDTH}, {where}: {name}: weights + gradients + optimizer state"]
            assert row["median"] == trained


def test_the_paper_size_is_accounted_for_without_its_memory(result: dict[str, Any]) -> None:
    found = rows_of(result, "memory")
    outside, block = (50257 + 256 + 2) * 1600, 12 * 1600**2 + 13 * 1600
    row = found["2 x 1600, exact: 1 leaders, shared gradient: weights + gradients + optimizer state"]
    assert row["median"] == 16 * (outside + block) + 4 * (4 + 12)
    assert row["ratio"] == pytest.approx((outside + block) / (outside + 2 * block), rel=1e-6)
    built = found["2 x 1600, exact: frozen start, redrawn: while it is built"]
    assert built["median"] == 4 * (outside + block)  # and never more
    assert built["ratio"] == pytest.approx((outside + block) / (outside + 2 * block) / 4, rel=1e-6)
    plain, checkpointed = (
        found[f"2 x 1600, exact{how}: conventional: activations, average"]["median"] for how in ("", ", checkpointed")
    )
    assert checkpointed < plain


def test_the_file_says_where_and_with_which_settings_it_was_measured(result: dict[str, Any]) -> None:
    assert result["machine"]["threads"] == 1
    assert {"processor", "cores", "versions", "load_at_start", "onednn"} <= set(result["machine"])
    assert result["machine"]["environment"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]
    assert result["options"]["workload"]["n_embd"] == WIDTH
    assert "json" not in result["options"] and "figure" not in result["options"]["growth"]  # paths of this machine


def test_many_networks_can_be_those_of_the_tying_table(tmp_path: Path) -> None:
    recipe = {
        "model": "gpt2",
        "tokenizer": "bytes",
        "n_layer": 6,
        "n_embd": 32,
        "beta2": 0.95,
        "k": 32,
        "total_steps": 384,
    }
    table = dataclasses.replace(made_up_table(), settings={"settings": recipe})
    work = BenchmarkSizes(k=3, device="cpu")
    found = settings_of(work, ManyNetworks(many_table=written(tmp_path, table)))
    assert {name: found[name] for name in recipe if name in found} == {
        name: value for name, value in (recipe | {"k": 3, "total_steps": 10**9}).items() if name != "model"
    }
    gym.make_vec("LayerTying-GPT2-v0", num_envs=2, vectorization_mode="vector_entry_point", **found).close()


def test_the_file_says_how_long_each_measurement_took(result: dict[str, Any]) -> None:
    assert list(result["seconds"]) == list(result["measurements"]) == MEASURED
    assert all(0 <= seconds < 600 for seconds in result["seconds"].values())


def test_what_was_measured_before_ctrl_c_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(MEASUREMENTS, "head", ("", interrupted))
    run = benchmark("table", "head", "--json", str(tmp_path / "all.json"))
    assert run.returncode == 130
    assert re.search(r"table took [\d.]+ s\n", run.stdout) and "what was measured is in the file" in run.stdout
    assert list(json.loads((tmp_path / "all.json").read_text())["measurements"]) == ["table"]


def test_memory_of_the_small_network_alone_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cases", lambda n_layer, n_groups: {"conventional": (np.arange(n_layer), {})})
    base = EnvConfig(tokenizer="gpt2", n_layer=1, n_embd=8, n_head=1, seq_len=8, batch_size=1, device="cpu")
    told: list[str] = []
    rows = memory.measure_memory(base, MemorySizes(paper_n_layer=0), told.append)
    assert {row.name.split(": ")[0] for row in rows} == {"1 x 8, measured", "1 x 8, measured, checkpointed"}
    assert [re.sub(r"\d+\.\d s", "S", line) for line in told] == [
        f"1 x 8, {how}: conventional, S"
        for how in ("exact", "exact, checkpointed", "measured", "measured, checkpointed")
    ]


def test_one_measurement_alone_can_be_run(tmp_path: Path) -> None:
    run = benchmark("--only", "dqn", "--json", str(tmp_path / "dqn.json"))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "L=48" in run.stdout
    assert list(json.loads((tmp_path / "dqn.json").read_text())["measurements"]) == ["dqn"]
    assert [path.name for path in tmp_path.iterdir()] == ["dqn.json"]


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--n-layer", "2", "n_layer must be at least 3"),
        ("--json", "missing/file.json", "folder that exists"),
        ("--paper-n-layer", "-1", "at least 0, got -1"),
        ("--vocabularies", "1", "in 2..65536 each, got (1,)"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_is_measured(option: str, value: str, named: str) -> None:
    run = benchmark(option, value)
    assert run.returncode != 0
    assert named in " ".join((run.stdout + run.stderr).split())
    assert "measuring" not in run.stdout


def test_the_script_is_the_command() -> None:
    command = [sys.executable, "-W", "error", str(SCRIPT), *words("--n-layer", "2")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode != 0
    assert "n_layer must be at least 3" in " ".join((run.stdout + run.stderr).split())


def test_the_bare_loop_computes_what_a_large_network_computes(
    monkeypatch: pytest.MonkeyPatch, text_folder: Path
) -> None:
    # Kernels of its own are for those: attention in several blocks of rows, the feed-forward part as one function.
    monkeypatch.setattr(feed_forward, "_SMALLEST", 0)
    sizes = BenchmarkSizes(
        repeats=1, dataset=str(text_folder), n_layer=3, n_embd=16, n_head=2, seq_len=80, batch_size=2, k=2
    )
    assert {row.unit for row in compare_step(sizes, random=False)} == {"ms"}  # it compares the results first
