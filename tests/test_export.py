"""A trained network that was exported computes the same, at the size of its unique weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tying_agents.commands import start
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.conftest import TINY
from tests.models import make_env
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied
from tying_env.runs import load_network


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("run") / "random"
    config = EnvConfig(**TINY | {"dataset": str(text_folder)})
    run(RunConfig("random", 1, run_dir=folder, env=config, test_windows=4))
    return folder


def unique(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_a_tied_folder_computes_the_same_with_shared_memory_and_a_cache(tmp_path: Path, run_folder: Path) -> None:
    saved = load_network(run_folder / "final.safetensors")
    folder = export_tied(run_folder, tmp_path / "a" / "tied", network="final")
    model: Any = load_tied(folder)
    assert isinstance(model, transformers.GPT2LMHeadModel)
    tokens = torch.arange(10)[None]
    expected = saved.network.model.eval()(input_ids=tokens).logits
    assert torch.equal(model(input_ids=tokens).logits, expected)
    for i, leader in enumerate(saved.tying):
        mine, theirs = (model.transformer.h[j].mlp.c_fc.weight for j in (i, leader))
        assert mine.data_ptr() == theirs.data_ptr()
        assert model.transformer.h[i].attn.layer_idx == i
    options = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with_cache, without = (model.generate(tokens, use_cache=cache, **options) for cache in (True, False))
    assert torch.equal(with_cache, without)
    assert with_cache.shape[1] == 16
    size = (folder / "tied.safetensors").stat().st_size
    assert 0 < size - 4 * unique(model) < 8000  # beside the weights a header


def test_a_dense_checkpoint_opens_with_transformers(tmp_path: Path, run_folder: Path) -> None:
    folder = export_tied(run_folder, tmp_path / "dense", network="final", dense=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    saved = load_network(run_folder / "final.safetensors")
    tokens = torch.arange(10)[None]
    torch.testing.assert_close(model(input_ids=tokens).logits, saved.network.model.eval()(input_ids=tokens).logits)
    assert unique(model) > unique(saved.network.model)


def test_the_card_has_tying_data_and_numbers(tmp_path: Path, run_folder: Path) -> None:
    card = (export_tied(run_folder, tmp_path / "tied") / "README.md").read_text()
    summary = json.loads((run_folder / "summary.json").read_text())
    assert f"| perplexity | {summary['test']['best']['perplexity']:,.6g} |" in card
    assert "layers independent" in card
    assert "leads" in card or "alone" in card
    assert '"agent": "random"' in card


@pytest.mark.parametrize("family", ["llama", "bert", "deit", "t5"])
def test_models_of_the_users_own_are_exported_from_the_environment(tmp_path: Path, family: str) -> None:
    env = make_env(family, unequal_blocks="within-kind")
    env.reset(seed=0)
    env.step(env.kinds.position // 2)
    before = {name: p.detach().clone() for name, p in env.trainer.named_parameters()}
    model = load_tied(export_tied(env, tmp_path / "tied"))
    assert unique(model) == unique(env.trainer.network.model)
    for name, tensor in env.trainer.network.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    dense = export_tied(env, tmp_path / "dense", dense=True)
    opened = type(env.trainer.network.model).from_pretrained(dense)  # type: ignore[attr-defined]
    assert all(torch.equal(opened.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(before[name], p) for name, p in env.trainer.named_parameters())  # training continues


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a run directory"):
        export_tied(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ValueError, match="network must be 'best' or 'final', got 'last'"):
        export_tied(run_folder, tmp_path / "out", network="last")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists already and is left as it is"):
        export_tied(run_folder, tmp_path / "out")


def test_an_export_that_fails_half_way_leaves_nothing(
    tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tying_env.export import tied_folder

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(tied_folder, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        export_tied(run_folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_folder_is_refused(tmp_path: Path, run_folder: Path) -> None:
    good = export_tied(run_folder, tmp_path / "good")
    tensors = load_file(good / "tied.safetensors")
    tying = json.loads((good / "tying.json").read_text())
    config = json.loads((good / "config.json").read_text())

    def refused(message: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=message):
            load_tied(tmp_path / "bad")
        shutil.rmtree(tmp_path / "bad")

    for name, message in (("tying.json", "it has no tying.json"), ("tied.safetensors", "it has no tied.safetensors")):
        shutil.copytree(good, tmp_path / "bad")
        (tmp_path / "bad" / name).unlink()
        refused(message, FileNotFoundError)
    for changed, message in (
        (
            {k: t for k, t in tensors.items() if k != "transformer.wpe.weight"},
            "lacks the tensor 'transformer.wpe.weight'",
        ),
        (tensors | {"more": torch.ones(1)}, "has an unexpected tensor 'more'"),
        (tensors | {"transformer.wpe.weight": torch.ones(3)}, r"'transformer.wpe.weight' of shape \(3,\), expected"),
        (tensors | {"transformer.wpe.weight": torch.ones(16, 16).half()}, "numbers of one type"),
    ):
        shutil.copytree(good, tmp_path / "bad")
        save_file(changed, tmp_path / "bad" / "tied.safetensors")
        refused(message)
    for file, value, message in (
        ("tying.json", tying | {"format": 3}, "is of the format 3, expected"),
        ("tying.json", tying | {"sources": [0, 0]}, "does not fit the model"),
        ("tying.json", tying | {"sources": [0, 1, 1, 2]}, "not in canonical form"),
        (
            "tying.json",
            tying | {"blocks": ["elsewhere"]},
            "at 'elsewhere' there is nothing; candidates: 'transformer.h'",
        ),
        ("tying.json", [], "holds no object"),
        ("config.json", config | {"architectures": ["pipeline"]}, "must name a model of transformers"),
        ("config.json", config | {"n_embd": "x"}, "does not describe a GPT2LMHeadModel"),
    ):
        shutil.copytree(good, tmp_path / "bad")
        (tmp_path / "bad" / file).write_text(json.dumps(value))
        refused(message)
    shutil.copytree(good, tmp_path / "bad")
    (tmp_path / "bad" / "tied.safetensors").write_bytes(b"abc")
    refused("is damaged")


def test_the_script_exports(tmp_path: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(run_folder), str(tmp_path / "x")]
    assert start("export", arguments) == 0
    assert "MB" in capsys.readouterr().out
    assert start("export", arguments) == 1
    assert "exists already" in capsys.readouterr().out


def test_the_environment_does_not_notice_an_export(tmp_path: Path, tiny: dict[str, Any]) -> None:
    one, two = LayerTyingEnv(**tiny), LayerTyingEnv(**tiny)
    for env in (one, two):
        env.reset(seed=0)
        env.step(np.array([0, 0, 1, 3]))
    export_tied(one, tmp_path / "tied")
    np.testing.assert_equal(one.step(np.array([0, 1, 1, 3])), two.step(np.array([0, 1, 1, 3])))
