"""Runs read back: load_run, evaluate.py and generate.py."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.command_line import called
from tests.reliability.runs import Watcher
from tying_env import EnvConfig
from tying_env.runs import RunDirectory, load_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    from tests.conftest import TINY

    config = EnvConfig(**TINY | {"dataset": str(text_folder)})
    path = tmp_path_factory.mktemp("saved") / "run"
    run(RunConfig("random-static", run_dir=path, env=config, test_windows=0), [Watcher()])
    return path


def command(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return called(script.removesuffix(".py"), *arguments)


def test_a_run_is_read_back_as_the_network_it_measured(finished: Path) -> None:
    loaded = load_run(finished)
    assert loaded.tokenizer is not None
    assert loaded.tying.tolist() == RunDirectory.open(finished).read_metrics()[-1]["tying"]
    follower = next(i for i, leader in enumerate(loaded.tying) if i != leader)
    blocks = loaded.saved.network.blocks
    own, leaders = (blocks[i].get_parameter("mlp.c_fc.weight") for i in (follower, int(loaded.tying[follower])))
    assert own is leaders
    assert not loaded.model.training


def test_generation_with_the_cache_equals_that_without(finished: Path) -> None:
    loaded = load_run(finished, "final")
    assert loaded.tokenizer is not None
    model: Any = loaded.model
    ids = torch.tensor([loaded.tokenizer.encode("The st").tolist()])
    with torch.no_grad():
        made = [model.generate(ids, max_new_tokens=9, do_sample=False, use_cache=c, pad_token_id=0) for c in (0, 1)]
    assert torch.equal(*made)


def test_what_cannot_be_read_back_says_why(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a run directory"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="which must be 'best' or 'final', got 'last'"):
        load_run(finished, "last")  # type: ignore[arg-type]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has no network yet"):
        load_run(tmp_path)


def test_evaluate_measures_what_the_run_measured(finished: Path, text_folder: Path) -> None:
    expected = RunDirectory.open(finished).read_json("summary.json")["test"]["best"]
    done = command("evaluate.py", str(finished))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{expected['perplexity']:,.2f}" in done.stdout
    assert f"{expected['bits_per_byte']:.4f}" in done.stdout
    other = command("evaluate.py", str(finished), "--dataset", str(text_folder / "train.txt"), "--windows", "4")
    assert other.returncode == 0, other.stdout
    assert f"{expected['perplexity']:,.2f}" not in other.stdout
    missing = command("evaluate.py", str(finished), "--dataset", "no/such/folder")
    assert missing.returncode == 1
    assert "no/such/folder" in missing.stdout


def test_generate_continues_with_a_text_and_equal_seeds_give_equal_texts(finished: Path) -> None:
    texts = [
        command("generate.py", str(finished), "--prompt", "The st", "--tokens", "8", "--seed", seed).stdout
        for seed in ("1", "1", "2")
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("The st")
    silent = command("generate.py", str(finished))
    assert silent.returncode == 1
    assert 'such as --prompt "The state of the union"' in silent.stdout
    too_long = command("generate.py", str(finished), "--prompt", "The st", "--tokens", "11")
    assert too_long.returncode == 1
    assert "tokens can be at most 10, got 11" in too_long.stdout
