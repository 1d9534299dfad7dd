"""What is exported can be used without this package: tokens, pixels, classes; and what else a folder promises."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.conftest import TINY
from tests.models import TRAIN, V, draw, make_env
from tying_env import EnvConfig
from tying_env.data import load_tokenizer
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied

TEXTS = ("Hello  world\n\n it's 1234 émigré 日本  \t x", "a\n\nb   ", "We, the people... don't")


def started(text_folder: Path, **changed: Any) -> LayerTyingEnv:
    env = LayerTyingEnv(**TINY | {"dataset": str(text_folder)} | changed)
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("dense", [False, True])
def test_gpt2s_tokenizer_lies_beside_the_weights(tmp_path: Path, text_folder: Path, dense: bool) -> None:
    env = started(text_folder, tokenizer="gpt2", model="bert", seq_len=8)
    folder = export_tied(env, tmp_path / "out", dense=dense)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        tokens = load_tokenizer("gpt2").encode(text).tolist()
        assert tokenizer(text)["input_ids"] == tokens
        assert tokenizer.decode(tokens) == text
    model: Any = transformers.AutoModelForMaskedLM.from_pretrained(folder) if dense else load_tied(folder)
    assert tokenizer.mask_token_id == model.config.mask_token_id == 50257 == model.config.vocab_size - 1
    assert tokenizer.model_max_length == 8
    assert "The mask is token 50257." in (folder / "README.md").read_text()


def test_the_card_says_how_bytes_become_tokens(tmp_path: Path, text_folder: Path) -> None:
    card = (export_tied(started(text_folder, model="bert"), tmp_path / "out") / "README.md").read_text()
    assert "`list(text.encode())`" in card
    assert "The mask is token 256." in card


@pytest.mark.parametrize("dense", [False, True])
def test_pixels_and_classes_of_a_run_can_be_used_with_transformers_alone(tmp_path: Path, dense: bool) -> None:
    unset = ("tokenizer", "seq_len")
    settings: dict[str, Any] = {k: v for k, v in TINY.items() if k not in unset} | {"model": "vit", "dataset": "digits"}
    run(RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**settings), test_windows=4))
    folder = export_tied(tmp_path / "run", tmp_path / "out", dense=dense)
    processor: Any = transformers.AutoImageProcessor.from_pretrained(folder)
    model: Any = transformers.AutoModelForImageClassification.from_pretrained(folder) if dense else load_tied(folder)
    workload: Any = LayerTyingEnv(**settings).workload
    examples = workload.examples("test", 5)
    pixels = processor([Image.fromarray(image[0]) for image in examples["pixel_values"]], return_tensors="pt")
    expected = torch.from_numpy(workload._prepared(examples)["pixel_values"])
    torch.testing.assert_close(pixels["pixel_values"], expected)
    assert model(**pixels).logits.shape == (5, 10)
    assert (model.config.id2label[3], model.config.label2id["7"]) == ("3", 7)


def test_transformers_does_not_open_a_tied_folder_with_random_layers(tmp_path: Path, text_folder: Path) -> None:
    folder = export_tied(started(text_folder), tmp_path / "out")
    with pytest.raises(OSError, match="no file named"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert "load_tied(folder)" in (folder / "README.md").read_text()


class OwnGPT2(transformers.GPT2LMHeadModel):
    """A class that transformers does not know."""


def test_what_load_tied_could_not_make_again_is_refused_when_it_is_exported(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=4, n_head=2)

    def prepared(model: transformers.PreTrainedModel) -> LayerTyingEnv:
        env = LayerTyingEnv(model=model, batches=lambda rng: draw("gpt2", rng), **TRAIN)
        env.reset(seed=0)
        env.step(np.array([0, 0, 1, 1]))
        return env

    env = prepared(OwnGPT2(config))
    with pytest.raises(TypeError, match=r"OwnGPT2 of .* is no class of transformers: load_tied could not find it"):
        export_tied(env, tmp_path / "out")
    changed = transformers.GPT2LMHeadModel(config)
    changed.transformer.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"load_tied could not make this model again.*unexpected tensor"):
        export_tied(prepared(changed), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    opened = OwnGPT2.from_pretrained(export_tied(env, tmp_path / "out", dense=True))
    for name, tensor in env.trainer.network.model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor), name


def test_other_folders_are_left_alone_and_the_new_one_is_an_ordinary_one(tmp_path: Path) -> None:
    env = make_env("gpt2")
    env.reset(seed=0)
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "thesis.txt").write_text("years of work")
    (tmp_path / "plain").mkdir()
    folder = export_tied(env, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.tmp", "plain"]
    assert (tmp_path / "out.tmp" / "thesis.txt").exists()
    assert os.stat(folder).st_mode == os.stat(tmp_path / "plain").st_mode
