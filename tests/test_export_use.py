"""What was exported is used elsewhere: measured, continued in text, adapted; also a network of the user's own."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tying_agents.commands import start
from tying_agents.commands.evaluate import Options as EvaluateOptions
from tying_agents.commands.evaluate import evaluated
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.conftest import TINY
from tests.models import Mixed, examples, own
from tests.own_networks import DATA, TEXT
from tying_env import EnvConfig
from tying_env.data import load_tokenizer
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_export, load_tied
from tying_env.runs import load_run

TEXTS = ("Hello  world\n\n it's 1234 émigré 日本  \t x", "a <mask> , b .", "\x00\x7f")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("run") / "random"
    config = EnvConfig(**TINY | {"dataset": str(text_folder)})
    run(RunConfig("random", 1, run_dir=folder, env=config, test_windows=4))
    return folder


def columns(table: Any) -> dict[str, str]:
    names, values = (list(column.cells) for column in table.columns)
    return dict(zip(names, values, strict=True))


def test_the_tokens_of_a_byte_level_export_are_the_bytes(tmp_path: Path, run_folder: Path) -> None:
    folder = export_tied(run_folder, tmp_path / "out", dense=True)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == list(text.encode())
        assert tokenizer.decode(list(text.encode())) == text
    assert (len(tokenizer), tokenizer.model_max_length) == (256, 16)
    pipe: Any = transformers.pipeline("text-generation", model=str(folder), device="cpu")
    made = pipe("The state", max_new_tokens=3, do_sample=False)[0]["generated_text"]
    prompt = torch.tensor([list(b"The state")])
    model: Any = load_run(run_folder).model
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}
    assert made == bytes(model.generate(prompt, **options)[0].tolist()).decode(errors="replace")


def test_the_mask_of_a_byte_level_bert_is_the_token_behind_the_bytes(tmp_path: Path, text_folder: Path) -> None:
    env = LayerTyingEnv(**TINY | {"dataset": str(text_folder), "model": "bert"})
    env.reset(seed=0)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(export_tied(env, tmp_path / "out"))
    assert tokenizer.mask_token_id == 256
    assert tokenizer("a<mask>")["input_ids"] == [97, 256]


@pytest.mark.parametrize("dense", [False, True])
def test_files_have_the_usual_permissions_and_no_paths_of_this_machine(
    tmp_path: Path, run_folder: Path, text_folder: Path, dense: bool
) -> None:
    folder = export_tied(run_folder, tmp_path / "out", dense=dense)
    (tmp_path / "usual").touch()
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        path.name: usual for path in folder.iterdir()
    }
    texts = [path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"]
    assert not any(os.sep + text_folder.parent.name in text for text in texts)
    assert f"on `{text_folder.name}`" in (folder / "README.md").read_text()


@pytest.mark.parametrize("dense", [False, True])
def test_an_exported_folder_is_measured_and_continues_a_text_as_its_run_does(
    tmp_path: Path, run_folder: Path, text_folder: Path, dense: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export_tied(run_folder, tmp_path / "out", dense=dense)
    measured = [
        columns(evaluated(EvaluateOptions(path, dataset=str(text_folder), windows=9, device="cpu")))
        for path in (run_folder, folder)
    ]
    assert measured[0] == measured[1]
    said = []
    for path in (run_folder, folder):
        assert start("generate", [str(path), "--prompt", "The state", "--tokens", "4", "--device", "cpu"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert load_export(folder).tying.tolist() == load_run(run_folder).tying.tolist()
    for words, message in (
        ([], "does not say where the data are that it was trained on: name some by --dataset"),
        (["--network", "final"], "is an exported folder, which has one network: leave --network out"),
    ):
        assert start("evaluate", [str(folder), *words]) == 1
        assert message in " ".join(capsys.readouterr().out.split())


def test_a_folder_of_before_says_what_it_lacks(tmp_path: Path, run_folder: Path) -> None:
    folder = export_tied(run_folder, tmp_path / "out")
    (folder / "training.json").unlink()
    load_tied(folder)
    with pytest.raises(FileNotFoundError, match=r"exported by an earlier version; export the run once more"):
        load_export(folder)
    with pytest.raises(FileNotFoundError, match="is not a run directory, but an exported network"):
        export_tied(folder, tmp_path / "again")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it
def test_adapters_are_not_merged_into_weights_that_layers_share(tmp_path: Path, run_folder: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = export_tied(run_folder, tmp_path / "out", network="final")
    settings = peft.LoraConfig(r=2, target_modules=["c_attn", "c_fc"], init_lora_weights=False, fan_in_fan_out=True)
    tokens = torch.arange(8)[None]
    assert len(set(load_export(folder).tying.tolist())) < 4
    with pytest.raises(ValueError, match=r"'attn\.c_attn\.weight' is shared by blocks \d.* and \d, .*tied=False"):
        peft.get_peft_model(load_tied(folder), settings).merge_and_unload()
    untied = load_tied(folder, tied=False)
    assert len({layer.mlp.c_fc.weight.data_ptr() for layer in untied.transformer.h}) == 4  # type: ignore[union-attr]
    assert torch.equal(untied(input_ids=tokens).logits, load_tied(folder)(input_ids=tokens).logits)
    adapted = peft.get_peft_model(untied, settings).eval()
    expected = adapted(input_ids=tokens).logits
    torch.testing.assert_close(adapted.merge_and_unload()(input_ids=tokens).logits, expected)


def test_what_a_dense_export_prints_are_no_bars(tmp_path: Path, run_folder: Path, capsys: Any) -> None:
    from transformers.utils import logging

    assert start("export", [str(run_folder), str(tmp_path / "out"), "--dense"]) == 0
    load_export(tmp_path / "out")
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.startswith(f"{tmp_path / 'out'}: ") and printed.out.count("\n") == 1
    assert logging.is_progress_bar_enabled()  # the caller's own setting is as it was


@pytest.mark.parametrize("dense", [False, True])
def test_a_module_of_the_users_own_is_exported_and_filled_again(tmp_path: Path, dense: bool) -> None:
    env = own(Mixed((4, 4, 4)))
    env.reset(seed=0)
    env.step(np.array([0, 1, 1]))
    folder = export_tied(env, tmp_path / "out", dense=dense)
    card, x = (folder / "README.md").read_text(), examples(5)[0]
    if dense:
        from safetensors.torch import load_model

        model: torch.nn.Module = Mixed((4, 4, 4))
        load_model(model, folder / "model.safetensors")
        assert 'load_model(model, f"{folder}/model.safetensors")' in card
    else:
        model = load_tied(folder, model=Mixed((4, 4, 4)))
        one, two = (model.get_parameter(f"layers.{i}.0.weight") for i in (1, 2))
        assert one is two
        assert "load_tied(folder, model=Mixed(...))" in card
        with pytest.raises(TypeError, match=r"a network of the user's own, a Mixed: .*load_tied\(folder, model=Mixed"):
            load_tied(folder)
        with pytest.raises(ValueError, match=r"'layers.0.0.weight' of shape \(4, 3\), expected \(5, 3\)"):
            load_tied(folder, model=Mixed((5, 5, 5)))
    assert torch.equal(model(x), env.trainer.network.model.eval()(x))
    with pytest.raises(TypeError, match="given as an object, with its data"):
        load_export(folder)


def test_a_model_of_transformers_is_not_filled(tmp_path: Path, run_folder: Path) -> None:
    folder = export_tied(run_folder, tmp_path / "out")
    with pytest.raises(TypeError, match=r"which its config\.json describes: leave model= out"):
        load_tied(folder, model=Mixed((4, 4)))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("text", "kind"), [(TEXT, "text"), (DATA, "data")])
def test_a_network_that_an_import_string_names_is_exported_and_measured(
    tmp_path: Path, text_folder: Path, text: str, kind: str, dense: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(text)
    model = f"{tmp_path}/net.py:make_network"
    settings: dict[str, Any] = {name: TINY[name] for name in ("k", "total_steps", "batch_size", "device")}
    if kind == "text":
        settings |= {"seq_len": 16, "n_layer": 3, "n_embd": 8, "dataset": str(text_folder)}
    config = RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(model=model, **settings), test_windows=4)
    run(config)
    words = ["--model", model, *(["--dense"] if dense else [])]
    assert start("export", [str(tmp_path / "run"), str(tmp_path / "out"), *words]) == 0
    assert start("export", [str(tmp_path / "run"), str(tmp_path / "more")]) == 1  # a file never makes code run
    assert "a file never makes code run" in " ".join(capsys.readouterr().out.split())
    data = str(text_folder) if kind == "text" else None
    measured = [
        columns(evaluated(EvaluateOptions(path, dataset=data, windows=5, model=model, device="cpu")))
        for path in (tmp_path / "run", tmp_path / "out")
    ]
    assert measured[0] == measured[1]
    assert "net.py:make_network" in (tmp_path / "out" / "README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "training.json").read_text())["env"]["model"] == "net.py:make_network"
    if kind == "text":
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
        assert tokenizer("We")["input_ids"] == load_tokenizer("bytes").encode("We").tolist()
