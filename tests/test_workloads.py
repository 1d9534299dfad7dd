"""BERT and ViT are environments like GPT-2's: checked, seeded, restored, forked, run and reported."""

import copy
import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from torch.nn import functional as F
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tying_env import PRESETS, EnvConfig, partition
from tying_env.env import LayerTyingEnv
from tying_env.primary.tasks import to_device
from tying_env.primary.workloads import open_workload
from tying_env.reports.comparison import load_comparison
from tying_env.reports.html import make_report
from tying_env.reports.results import results_table
from tying_env.reports.summary import summary_rows
from tying_env.runs import RunDirectory, load_network
from tying_env.runs.run_directory import BEST, FINAL

SIZES: dict[str, Any] = {"n_layer": 4, "n_embd": 16, "n_head": 2, "k": 1, "total_steps": 10, "validate_every": 2}
KINDS = ("bert", "vit")
IDS = {"bert": "LayerTying-BERT-v0", "vit": "LayerTying-ViT-v0"}


@pytest.fixture
def settings(text_folder: Path) -> dict[str, dict[str, Any]]:
    tiny = SIZES | {"batch_size": 4, "validation_windows": 8, "device": "cpu"}
    text = {"model": "bert", "tokenizer": "bytes", "seq_len": 20, "dataset": str(text_folder)}
    images = {"model": "vit", "dataset": "digits", "augment": "crop-flip"}
    return {"bert": tiny | text, "vit": tiny | images}


def rollout(env: LayerTyingEnv, steps: int, seed: int = 3) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [env.step(partition.uniform_random_action(4, rng)) for _ in range(steps)]


@pytest.mark.parametrize("kind", KINDS)
def test_both_checkers_pass_without_a_warning(settings: Any, kind: str) -> None:
    check_env(gym.make(IDS[kind], **settings[kind]).unwrapped)
    check_env_sb3(gym.make(IDS[kind], **settings[kind]))


def test_vit_passes_both_checkers_with_accuracy_as_its_reward(settings: Any) -> None:
    check_env(gym.make(IDS["vit"], **settings["vit"], reward="accuracy").unwrapped)
    check_env_sb3(gym.make(IDS["vit"], **settings["vit"], reward="accuracy"))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_bits_and_other_seeds_others(settings: Any, kind: str) -> None:
    runs = []
    for seed in (5, 5, 6):
        env = LayerTyingEnv(**settings[kind])
        runs.append([env.reset(seed=seed), *rollout(env, 4)])
    np.testing.assert_equal(runs[1], runs[0])
    assert [step[1] for step in runs[2][1:]] != [step[1] for step in runs[0][1:]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_a_forked_and_a_pickled_environment_continue_with_the_same_bits(settings: Any, kind: str) -> None:
    env = LayerTyingEnv(**settings[kind])
    for cut in (0, 2):
        env.reset(seed=7)
        rollout(env, cut)
        state = copy.deepcopy(env.state_dict())
        tensors = {key: state["trainer"].pop(key) for key in ("weights", "optimizer", "dropout")}
        state = json.loads(json.dumps(state, allow_nan=False))
        state["trainer"] |= tensors
        restored = LayerTyingEnv(**settings[kind])
        restored.load_state_dict(state)
        twins = [restored, env.fork(), pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
        expected = rollout(env, 3, seed=cut)
        for twin in twins:
            np.testing.assert_equal(rollout(twin, 3, seed=cut), expected)


def test_a_bert_is_transformers_with_its_own_masked_loss(settings: Any) -> None:
    env = LayerTyingEnv(**settings["bert"] | {"dropout": 0.0})
    env.reset(seed=0, options={"tying": [0, 0, 2, 0]})
    model: Any = env.trainer.network.model.eval()
    batch = to_device(env.windows("validation", 3), env.device)
    labels = torch.full_like(batch["input_ids"], -100).scatter(1, batch["positions"], batch["targets"])
    expected = model(input_ids=batch["input_ids"], labels=labels).loss
    torch.testing.assert_close(env.trainer.task.loss(model, batch), expected)
    result = env.evaluate("validation", 3)
    assert result.tokens == 3 * 3  # 15 % of 20 tokens
    assert result.mean_loss == pytest.approx(expected.item(), rel=1e-5)


def test_masks_of_validation_stay_the_same_and_follow_their_seed(settings: Any) -> None:
    env = LayerTyingEnv(**settings["bert"])
    np.testing.assert_equal(env.windows("validation", 8), env.windows("validation", 8))
    other = LayerTyingEnv(**settings["bert"] | {"mask_seed": 1})
    assert (env.windows("test", 8)["positions"] != other.windows("test", 8)["positions"]).any()
    env.reset(seed=0)
    first, second = (env.trainer.batches.next_batch()["positions"] for _ in range(2))
    assert (first != second).any()


def test_a_vit_is_transformers_and_counts_what_it_gets_right(settings: Any) -> None:
    env = LayerTyingEnv(**settings["vit"] | {"validation_windows": 0})
    env.reset(seed=0)
    model: Any = env.trainer.network.model.eval()
    images = env.windows("test", 0)
    mean, deviation = (f(env.windows("train", 0)["pixel_values"]) for f in (np.mean, np.std))
    pixels = torch.from_numpy((images["pixel_values"].astype(np.float32) - mean) / deviation).float()
    labels = torch.from_numpy(images["labels"])
    with torch.no_grad():
        scores = model(pixel_values=pixels).logits
    result = env.evaluate("test", 0)
    assert result.tokens == len(labels) == 179
    assert result.accuracy == pytest.approx((scores.argmax(-1) == labels).float().mean().item())
    assert result.mean_loss == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-4)
    assert result.bits_per_byte is None


def test_a_vit_learns_digits(settings: Any) -> None:
    recipe = {"learning_rate": 3e-3, "schedule": "constant", "warmup_steps": 0, "batch_size": 32}
    env = LayerTyingEnv(**settings["vit"] | recipe | {"augment": "none", "n_embd": 32})
    env.reset(seed=0, options={"tying": [0, 0, 2, 2]})
    env.trainer.train(120)
    accuracy = env.evaluate("test", 0).accuracy
    assert accuracy is not None
    assert accuracy > 0.6


def test_a_bert_learns_letters(settings: Any) -> None:
    env = LayerTyingEnv(**settings["bert"] | {"learning_rate": 1e-2, "batch_size": 16})
    env.reset(seed=0, options={"tying": [0, 0, 2, 2]})
    env.trainer.train(60)
    assert env.evaluate("test", 64).mean_loss < 3.5  # a uniform guess: 5.5


def test_the_reward_is_the_accuracy_where_that_is_asked_for(settings: Any) -> None:
    env = LayerTyingEnv(**settings["vit"], reward="accuracy", reward_batches=5)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([0, 0, 1, 1]))
    assert reward == info["accuracy"] == round(reward * 20) / 20
    plain = LayerTyingEnv(**settings["vit"], reward_batches=5)
    plain.reset(seed=0)
    _, other, _, _, same = plain.step(np.array([0, 0, 1, 1]))
    assert other == -info["perplexity"]
    np.testing.assert_equal(same, info)


def test_divergence_of_a_classifier_ends_with_the_lowest_reward(settings: Any) -> None:
    env = LayerTyingEnv(**settings["vit"], reward="accuracy")
    env.reset(seed=0)
    with torch.no_grad():
        next(env.trainer.network.blocks[0].parameters())[0] = math.inf
    _, reward, terminated, truncated, info = env.step(np.zeros(4, dtype=np.int64))
    assert (reward, terminated, truncated, info["accuracy"]) == (0.0, True, False, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_continues_to_the_same_bits(tmp_path: Path, settings: Any, kind: str) -> None:
    whole = outcome(finish(small(settings[kind], tmp_path / "whole")))
    config = small(settings[kind], tmp_path / "stopped")
    assert run(config, [Watcher(lambda decision: interrupt() if decision == 5 else None)])[1] == "interrupted"
    resume_until_it_ends(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == whole


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_networks_results_and_a_report(tmp_path: Path, settings: Any, kind: str) -> None:
    for seed in (0, 1):
        config = RunConfig("dqn", seed, run_dir=tmp_path / str(seed), env=EnvConfig(**settings[kind]), test_windows=8)
        directory, status = run(config)
        assert status == "finished"
    rows = dict(summary_rows(directory))
    shown = rows["test perplexity, best network"]
    assert ("accuracy" in shown) == (kind == "vit")
    for name in (BEST, FINAL):
        saved = load_network(directory.path / name)
        assert saved.config == config.env
    env = LayerTyingEnv(**settings[kind])
    test = directory.read_json("summary.json")["test"]["final"]
    measured = env.workload.evaluate(saved.network.model, "test", 8, env.device)
    assert measured._asdict() == pytest.approx(test)
    comparison = load_comparison([tmp_path], metric="test-accuracy" if kind == "vit" else "test-cross-entropy")
    better = {"vit": "higher is better", "bert": "lower is better"}[kind]
    assert better in results_table(comparison).title
    by_perplexity, headings, rows = results_table(load_comparison([tmp_path]))
    accuracies = [RunDirectory(tmp_path / seed).read_json("summary.json")["test"]["best"]["accuracy"] for seed in "01"]
    assert headings[3] == {"vit": "accuracy", "bert": "bits/byte"}[kind]
    assert rows[0][3] == (f"{np.mean(accuracies):.3f}" if kind == "vit" else "–")
    assert {"vit": "(per image)", "bert": "(per hidden byte)"}[kind] in by_perplexity
    problems = [p.problem for p in make_report(comparison).all_pictures() if p.figure is None]
    assert not [p for p in problems if "independent layer" not in p]


def test_the_papers_sizes_are_the_papers() -> None:
    bert, vit = (EnvConfig(**PRESETS[model, "paper"]) for model in ("bert", "vit"))
    assert (bert.n_layer, bert.n_embd, bert.n_head, bert.k, bert.learning_rate) == (12, 768, 12, 15, 1e-4)
    assert vit.n_layer == 32
    from tying_env.primary.models import build_model

    with torch.device("meta"):
        model = build_model(vit, {"channels": 3, "height": 32, "width": 32, "classes": 10})
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(630e6, rel=0.005)
    for name in ("BERT", "ViT", "GPT2"):
        assert gym.spec(f"LayerTying-{name}-Paper-v0").kwargs == PRESETS[name.lower(), "paper"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("vit", {"patch_size": 3}, "patch_size must divide the images' 8 x 8 pixels, got 3"),
        (
            "vit",
            {"seq_len": 64},
            "seq_len does not apply to the model 'vit', only to gpt2 and llama and bert",
        ),
        ("vit", {"dataset": "sotu"}, "unknown images 'sotu': no such file, and not one of digits, cifar10"),
        ("bert", {"augment": "crop"}, "augment does not apply to the model 'bert', only to vit"),
        ("bert", {"reward": "accuracy"}, "reward='accuracy' needs a network that classifies"),
        ("bert", {"seq_len": 1}, "seq_len must be at least 2"),
        ("bert", {"dataset": "digits"}, "unknown data set 'digits'"),
        (
            "bert",
            {"model": "custom", "tokenizer": "gpt2", "seq_len": 128, "dataset": "sotu"},
            "does not apply|LayerTying",
        ),
        ("bert", {"model": "gru"}, "model must be one of 'gpt2', .*'causal-lm', or an import string .*; got 'gru'"),
    ],
)
def test_a_setting_that_does_not_suit_the_network_is_refused(
    settings: Any, kind: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LayerTyingEnv(**settings[kind] | changed)


def test_the_frequency_baseline_is_what_predicting_by_training_frequencies_comes_to(text_folder: Path) -> None:
    text = EnvConfig(tokenizer="bytes", dataset=str(text_folder), seq_len=16)
    train = (text_folder / "train.txt").read_bytes()
    counts = {byte: train.count(bytes([byte])) + 1 for byte in range(256)}
    total = sum(counts.values())
    for workload, targets in (
        (open_workload(text), open_workload(text).examples("validation", 8)[:, 1:]),
        (masked := open_workload(dataclasses.replace(text, model="bert")), masked.examples("validation", 8)["targets"]),
    ):
        losses = [-math.log(counts[int(byte)] / total) for byte in targets.ravel()]
        expected = math.exp(sum(losses) / len(losses))
        assert workload.frequency_perplexity("validation", 8) == pytest.approx(expected, rel=1e-3)


def test_the_frequency_baseline_of_images_is_about_their_number_of_classes() -> None:
    pytest.importorskip("sklearn")
    digits = open_workload(EnvConfig(model="vit", dataset="digits"))
    assert digits.frequency_perplexity("test", 0) == pytest.approx(10, rel=0.02)
