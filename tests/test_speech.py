"""Speech is an environment like the others: checked, seeded, restored, forked, run, reported and exported."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from torch.nn import functional as F
from tying_agents.commands.early import chosen_preset
from tying_agents.run_config import RunConfig
from tying_agents.running.checks import check_dataset
from tying_agents.running.runner import run

from tests.reliability.runs import Watcher, finish, interrupt, outcome, resume_until_it_ends, small
from tests.speech_files import CLASSES, LONGEST, write_ts
from tests.speech_files import F as FEATURES
from tying_env import EnvConfig, partition
from tying_env.compression.pruning import input_norms, linears_of
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_export, load_tied
from tying_env.primary.tasks import to_device
from tying_env.reports.comparison import load_comparison
from tying_env.reports.results import results_table
from tying_env.reports.summary import summary_rows
from tying_env.runs import load_run
from tying_env.vector import VectorTyingEnv


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    sizes = {"n_layer": 4, "n_embd": 16, "n_head": 2, "k": 2, "total_steps": 20, "batch_size": 4, "seq_len": LONGEST}
    data = {"model": "speech", "dataset": str(write_ts(tmp_path_factory.mktemp("speech")))}
    return sizes | data | {"validate_every": 4, "validation_windows": 0, "device": "cpu"}


def rollout(env: LayerTyingEnv, steps: int, seed: int = 3) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [env.step(partition.uniform_random_action(4, rng)) for _ in range(steps)]


def test_the_registered_environments_hold_what_gymnasium_asks(settings: Any) -> None:
    env = gym.make("LayerTying-Speech-v0", **settings, reward="accuracy")
    check_env(env.unwrapped, skip_render_check=True)
    sublayers = gym.make("LayerTying-Speech-Sublayers-v0", **settings)
    assert sublayers.action_space == gym.spaces.MultiDiscrete([1, 2, 3, 4] * 2)
    check_env_sb3(sublayers)


def test_scores_do_not_depend_on_padding(settings: Any) -> None:
    env = LayerTyingEnv(**settings)
    env.reset(seed=0)
    model = env.trainer.network.model.eval()
    with torch.no_grad():
        batch = to_device(next(env.workload.batches_of("test", 4)), env.device)
        scores = model(batch["frames"], batch["lengths"])
        assert len(set(batch["lengths"].tolist())) > 1
        for i, length in enumerate(batch["lengths"].tolist()):
            alone = model(batch["frames"][i : i + 1, :length], batch["lengths"][i : i + 1])
            torch.testing.assert_close(alone[0], scores[i])
        behind = torch.arange(batch["frames"].shape[1]) >= batch["lengths"][:, None]
        torch.testing.assert_close(model(batch["frames"].masked_fill(behind[..., None], 9.0), batch["lengths"]), scores)
        read = int(batch["lengths"][0]) - 1  # the last frame is read
        batch["frames"][0, read] += 1
        assert (model(batch["frames"], batch["lengths"])[0] - scores[0]).abs().max() > 1e-4


def test_it_counts_what_it_gets_right_and_the_frames_that_it_reads(settings: Any) -> None:
    env = LayerTyingEnv(**settings)
    env.reset(seed=0)
    data, workload = env.windows("test", 0), env.workload
    mean, deviation = (np.array(workload.describe()[f"feature_{name}"]) for name in ("mean", "deviation"))
    frames = torch.from_numpy((data["frames"] - mean) / deviation).float()
    labels = torch.from_numpy(data["labels"])
    with torch.no_grad():
        scores = env.trainer.network.model.eval()(frames, torch.from_numpy(data["lengths"]))
    result = env.evaluate("test", 0)
    assert result.tokens == len(labels) == 3 * len(CLASSES)
    assert result.accuracy == pytest.approx((scores.argmax(-1) == labels).float().mean().item())
    assert result.mean_loss == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-4)
    assert env.trainer.task.count_tokens(data) == data["lengths"].sum() < data["frames"].shape[0] * LONGEST
    assert workload.frequency_accuracy("test", 0) == pytest.approx(1 / 3)
    assert workload.frequency_perplexity("test", 0) == pytest.approx(3)


def test_it_learns_the_classes(settings: Any) -> None:
    recipe = {"learning_rate": 3e-3, "schedule": "constant", "warmup_steps": 0, "batch_size": 16}
    env = LayerTyingEnv(**settings | recipe)
    env.reset(seed=0, options={"tying": [0, 0, 2, 2]})
    env.trainer.train(40)
    accuracy = env.evaluate("test", 0).accuracy
    assert accuracy is not None and accuracy > 0.7


def test_a_restored_and_a_forked_environment_continue_with_the_same_bits(settings: Any) -> None:
    choice = {"units": "sublayers", "residual_scale": "sqrt", "checkpoint_blocks": True}
    env, restored = LayerTyingEnv(**settings | choice), LayerTyingEnv(**settings | choice)
    actions = [[0, 0, 1, 3], [0, 1, 0, 2], [0, 0, 2, 0], [0, 1, 1, 1]]
    both = [np.array(action * 2) for action in actions]
    env.reset(seed=7)
    env.step(both[0])
    state = copy.deepcopy(env.state_dict())
    tensors = {key: state["trainer"].pop(key) for key in ("weights", "optimizer", "dropout")}
    state = json.loads(json.dumps(state, allow_nan=False))
    state["trainer"] |= tensors
    restored.load_state_dict(state)
    twins = [restored, env.fork()]
    expected = [env.step(action) for action in both[1:]]
    for twin in twins:
        np.testing.assert_equal([twin.step(action) for action in both[1:]], expected)


def test_ways_to_compute_leave_the_numbers_as_they_are(settings: Any) -> None:
    choices: list[dict[str, Any]] = [{}, {"checkpoint_blocks": True}, {"frozen_weights": "redrawn"}, {"accumulate": 2}]
    envs = [LayerTyingEnv(**settings | {"dropout": 0.0} | choice) for choice in choices]
    for env in envs:
        env.reset(seed=5)
    for one, *others in zip(*(rollout(env, 2) for env in envs), strict=True):
        for other in others:
            assert other[1] == pytest.approx(one[1], rel=1e-5)
            assert other[4]["train_loss"] == pytest.approx(one[4]["train_loss"], rel=1e-5)


def test_sublayers_that_are_tied_alike_train_as_blocks_do(settings: Any) -> None:
    envs = [LayerTyingEnv(**settings | {"dropout": 0.0, "units": units}) for units in ("block", "sublayers")]
    for env in envs:
        env.reset(seed=0)
    for action in ([0, 0, 1, 3], [0, 1, 0, 2], [0, 0, 0, 0]):
        one, two = (env.step(np.array(action * n))[4] for n, env in enumerate(envs, 1))
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
        assert two["trainable_parameters"] == one["trainable_parameters"]


def test_a_run_that_is_stopped_continues_to_the_same_bits(tmp_path: Path, settings: Any) -> None:
    whole = outcome(finish(small(settings, tmp_path / "whole")))
    config = small(settings, tmp_path / "stopped")
    assert run(config, [Watcher(lambda decision: interrupt() if decision == 5 else None)])[1] == "interrupted"
    resume_until_it_ends(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == whole


def test_a_run_leaves_results_that_are_compared_by_accuracy(tmp_path: Path, settings: Any) -> None:
    env = EnvConfig(**settings | {"total_steps": 8})
    directory, status = run(RunConfig("random", run_dir=tmp_path / "0", env=env))
    assert status == "finished"
    shown = dict(summary_rows(directory))["test perplexity, best network"]
    assert "accuracy" in shown and "9 utterances" in shown
    title, headings, _ = results_table(load_comparison([tmp_path], metric="test-accuracy"))
    assert "higher is better" in title
    title, headings, _ = results_table(load_comparison([tmp_path]))
    assert "(per utterance)" in title and headings[3] == "accuracy"


@pytest.mark.parametrize("dense", [False, True])
def test_an_exported_folder_says_all_that_its_network_needs(tmp_path: Path, settings: Any, dense: bool) -> None:
    scaled = {"residual_scale": "sqrt", "residual_ramp": 0} if dense else {}
    env = LayerTyingEnv(**settings | scaled)
    env.reset(seed=0)
    env.step(np.array([0, 0, 1, 3]))
    if dense:
        with pytest.raises(TypeError, match="residual branches are scaled"):
            export_tied(env, tmp_path / "tied")
    folder = export_tied(env, tmp_path / "out", dense=dense)
    expected = env.evaluate("test", 0)
    read = load_export(folder)
    models = [read.model] if dense else [read.model, load_tied(folder)]
    for model in models:
        found = env.workload.evaluate(model, "test", 0, env.device)
        assert found.mean_loss == pytest.approx(expected.mean_loss, rel=1e-5)
    sizes = read.open_workload(settings["dataset"]).sizes
    assert (sizes["features"], sizes["class_names"]) == (FEATURES, list(CLASSES))
    assert sizes == env.workload.sizes == json.loads((folder / "training.json").read_text())["sizes"]
    card = (folder / "README.md").read_text()
    assert ("load_export(folder).model" if dense else "load_tied(folder)\n```") in card
    assert f"Up to {LONGEST} frames of {FEATURES} features: " in card and "Classes: ada, ben, cem." in card
    training = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps(training | {"sizes": {"classes": 3}}))
    with pytest.raises(ValueError, match=r"training.json does not describe a speech: KeyError\('features'\)"):
        load_export(folder)


def test_other_data_are_measured_as_the_network_has_learned_to_read_them(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the scale of its own training data, and the classes under their names."""
    run(RunConfig("conventional", run_dir=tmp_path / "run", env=EnvConfig(**settings), measure_test=False))
    loaded = load_run(tmp_path / "run")
    own = loaded.open_workload().evaluate(loaded.model, "test", 0, torch.device("cpu"))
    scaled, renamed = tmp_path / "scaled", tmp_path / "renamed"
    for folder, change in ((scaled, lambda rows: rows * 3 + 1), (renamed, lambda rows: rows)):
        folder.mkdir()
        for file in Path(settings["dataset"]).glob("*.ts"):
            lines = []
            for line in file.read_text().splitlines():
                if line[:1] in "#@":
                    lines.append(line)
                    continue
                *features, label = line.split(":")
                rows = [change(np.array(row.split(","), dtype=float)) for row in features]
                name = "zoe" if folder is renamed and label == "ada" else label
                lines.append(":".join([*(",".join(map(str, row)) for row in rows), name]))
            (folder / file.name).write_text("\n".join(lines) + "\n")
    workload = loaded.open_workload(str(scaled))
    found = workload.evaluate(loaded.model, "test", 0, torch.device("cpu"))
    assert abs(found.mean_loss - own.mean_loss) > 1e-3  # with a scale of their own they would be the same
    mean, deviation = (np.array(loaded.saved.sizes[name]) for name in ("input_mean", "input_deviation"))
    raw = workload.examples("test", 0)["frames"][0, 0]
    given = next(workload.batches_of("test", 0))["frames"][0, 0]
    np.testing.assert_allclose(given, (raw - mean) / deviation, rtol=1e-5)
    with pytest.raises(ValueError, match=r"'class_names': \['ada', 'ben', 'cem'\].* has .*'zoe'"):
        loaded.open_workload(str(renamed))
    earlier = {name: loaded.saved.sizes[name] for name in ("features", "classes")}  # as files of before have
    before = dataclasses.replace(loaded, saved=loaded.saved._replace(sizes=earlier))
    before.open_workload(str(renamed))
    # Of recordings there would be a rate: features of sound are not those of a file of numbers.
    sound = dataclasses.replace(loaded, saved=loaded.saved._replace(sizes=loaded.saved.sizes | {"rate": 8000}))
    with pytest.raises(ValueError, match=r"for data of \{'rate': 8000\}, .* has \{'rate': None\}"):
        sound.open_workload()
    heard = loaded.open_workload()
    heard.sizes = heard.sizes | {"rate": 8000}
    monkeypatch.setattr("tying_env.runs.saved_run.open_workload", lambda *_: heard)
    with pytest.raises(ValueError, match=r"for data of \{'rate': None\}, .* has \{'rate': 8000\}"):
        loaded.open_workload()


def test_norms_of_inputs_leave_padding_out(settings: Any) -> None:
    env = LayerTyingEnv(**settings)
    env.reset(seed=0)
    network = env.trainer.network
    linears = linears_of(network)
    norms = input_norms(network.model.eval(), linears, env.workload, 8)
    first = next(linear for linear in linears if "attention" in linear.name)
    seen: list[torch.Tensor] = []
    hook = first.modules[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    batches = env.workload.training_batches(0)
    inside = []
    for _ in range(2):
        batch = batches.next_batch()
        env.workload.task.loss(network.model, to_device(batch, env.device))
        inside += [states[:length] for states, length in zip(seen[-1], batch["lengths"].tolist(), strict=True)]
    hook.remove()
    assert len(seen) == 2 and len(torch.cat(inside)) < sum(len(states.flatten(0, 1)) for states in seen)
    expected = torch.cat(inside).double().square().sum(0).sqrt()
    torch.testing.assert_close(norms[first.name], expected, rtol=1e-5, atol=1e-8)


def test_deltas_of_every_layers_own_train(settings: Any) -> None:
    pytest.importorskip("peft")
    env = LayerTyingEnv(**settings | {"delta_rank": 2})
    env.reset(seed=0)
    rollout(env, 2)
    deltas = [p for name, p in env.trainer.network.model.named_parameters() if "lora_B" in name]
    assert deltas and all(p.abs().sum() > 0 for p in deltas)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patch_size": 8}, "patch_size does not apply to the model 'speech', only to vit"),
        ({"augment": "crop"}, "augment does not apply to the model 'speech', only to vit"),
        ({"tokenizer": "gpt2"}, "tokenizer does not apply to the model 'speech'"),
        ({"seq_len": 3}, "more than the 3 of seq_len"),
        ({"dataset": "digits"}, "unknown speech 'digits'"),
        ({"n_head": 3}, "n_head must divide n_embd"),
    ],
)
def test_a_setting_that_does_not_suit_is_refused(settings: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerTyingEnv(**settings | changed)


def test_what_there_is_not_for_speech_is_refused_by_name(settings: Any) -> None:
    with pytest.raises(ValueError, match="init_from does not apply to the model 'speech'"):
        EnvConfig(**settings, init_from="somewhere")
    with pytest.raises(ValueError, match="model must be 'gpt2' in the vector environment, got 'speech'"):
        VectorTyingEnv(num_envs=2, **settings)
    with pytest.raises(ValueError, match="preset must be small for the model 'speech'"):
        chosen_preset(["--model", "speech", "--preset", "paper"])
    with pytest.raises(ValueError, match="unknown speech 'nowhere'"):
        check_dataset("speech", "nowhere")
    assert chosen_preset(["--model", "speech"])[1].dataset == "japanese-vowels"
