"""Downstream tasks: classifiers whose tying stays, low-rank updates that a controller ties, and the script."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tying_agents.commands import start
from tying_agents.downstream import finetuning
from tying_agents.downstream.adapters import tune_adapters
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run

from tests.conftest import TINY
from tests.controllers import make_controller
from tests.reliability.runs import Watcher
from tying_env import EnvConfig
from tying_env.data import load_tokenizer
from tying_env.data.glue import encode, load_glue, scores
from tying_env.downstream import TuningConfig, make_classifier, predict, tune
from tying_env.runs import load_network
from tying_env.seeding import torch_stream

SCRIPT = str(Path(__file__).parents[1] / "scripts" / "finetune.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> dict[str, Path]:
    """A GPT-2 and a BERT, tied, after a few training steps."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for model in ("gpt2", "bert"):
        env = EnvConfig(**TINY | {"dataset": str(text_folder), "model": model, "seq_len": 24})
        found[model] = folder / model
        run(RunConfig("cycle", run_dir=folder / model, env=env, test_windows=4), [Watcher()])
    return found


@pytest.mark.parametrize("model", ["gpt2", "bert"])
@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_a_classifier_trains_what_it_should_and_tied_layers_stay_tied(
    glue: Path, runs: dict[str, Path], model: str, method: Any
) -> None:
    file = runs[model] / "final.safetensors"
    classifier: Any = make_classifier(file, method, torch_stream(0, "head"), rank=2)
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    examples, _ = encode(load_glue("sst2", "train", glue), load_tokenizer("bytes"), 24)
    untrained = predict(classifier, examples)
    tuned = tune(classifier, examples, TuningConfig(epochs=4, batch_size=16, learning_rate=0.01), 0)
    changed = {name for name, p in classifier.named_parameters() if not torch.equal(p, before[name])}
    assert tuned.trainable_parameters == sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    assert "head.weight" in changed
    if method == "full":
        assert any("backbone" in name for name in changed)
    else:
        assert all("lora" in name or name.startswith("head") for name in changed)
        assert any("lora" in name for name in changed) == (method == "lora")
    blocks = classifier.backbone.h if model == "gpt2" else classifier.backbone.encoder.layer
    saved = load_network(file)
    assert saved.tying == [0, 1, 0, 1]
    for i, j in ((0, 2), (1, 3)):
        mine, theirs = ([p for name, p in blocks[k].named_parameters() if "lora" not in name] for k in (i, j))
        assert all(p.data_ptr() == q.data_ptr() for p, q in zip(mine, theirs, strict=True))
    accuracy = scores("sst2", examples["labels"], predict(classifier, examples))["accuracy"]
    start = scores("sst2", examples["labels"], untrained)["accuracy"]
    assert accuracy > (0.9 if method == "full" else start - 0.05)


def test_padding_makes_no_difference(runs: dict[str, Path]) -> None:
    for path in runs.values():
        classifier = make_classifier(path / "final.safetensors", "full", torch_stream(0, "head")).eval()
        tokens = torch.arange(5)[None]
        alone = classifier(tokens, torch.ones_like(tokens))
        padded = torch.cat([tokens, torch.full((1, 3), 9)], 1)
        mask = torch.tensor([[1] * 5 + [0] * 3, [1] * 8])
        together = classifier(torch.cat([padded, torch.arange(8)[None]]), mask)
        torch.testing.assert_close(together[:1], alone)


def test_equal_seeds_give_equal_classifiers(glue: Path, runs: dict[str, Path]) -> None:
    examples, _ = encode(load_glue("sst2", "train", glue), load_tokenizer("bytes"), 24)
    heads = []
    for seed in (0, 0, 1):
        classifier = make_classifier(runs["gpt2"] / "final.safetensors", "lora", torch_stream(seed, "head"))
        tune(classifier, examples, TuningConfig(epochs=1), seed)
        heads.append(classifier.head.weight.detach())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("agent", ["dqn", "albert"])
def test_low_rank_updates_are_tied_by_a_controller(glue: Path, runs: dict[str, Path], agent: Any) -> None:
    examples, _ = encode(load_glue("sst2", "train", glue), load_tokenizer("bytes"), 24)
    file = runs["bert"] / "final.safetensors"
    before = dict(load_network(file).network.model.named_parameters())
    adapted = tune_adapters(
        file, examples, TuningConfig(epochs=3), 0, lambda n_layer: make_controller(agent, n_layer, 0), k=3, rank=2
    )
    model: Any = adapted.classifier
    layers = model.backbone.encoder.layer
    queries = [layer.attention.self.query for layer in layers]
    for i, leader in enumerate(adapted.tying):
        assert queries[i].lora_A.default.weight is queries[leader].lora_A.default.weight
        # The network's own weights stand still, tied as they were trained.
        assert torch.equal(
            queries[i].base_layer.weight, before[f"bert.encoder.layer.{i % 2}.attention.self.query.weight"]
        )
    update = sum(p.numel() for name, p in layers[0].named_parameters() if "lora" in name)
    head = model.head.weight.numel() + model.head.bias.numel()
    assert adapted.trainable_parameters == pytest.approx(head + adapted.independent_layers * update)
    if agent == "albert":
        assert adapted.tying == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "half"}, "method must be one of 'full', 'lora', 'head', got 'half'"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
    ],
)
def test_bad_arguments_of_a_classifier_are_named(runs: dict[str, Path], arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_classifier(
            runs["gpt2"] / "final.safetensors", **{"method": "full", "generator": torch_stream(0, "x")} | arguments
        )


def test_a_network_of_images_is_refused(tmp_path: Path) -> None:
    settings = {k: v for k, v in TINY.items() if k not in ("tokenizer", "seq_len")}
    env = EnvConfig(model="vit", **settings | {"dataset": "digits", "total_steps": 2})
    run(RunConfig("conventional", run_dir=tmp_path / "vit", env=env, measure_test=False), [Watcher()])
    with pytest.raises(ValueError, match="must be a gpt2, a llama, a bert or a causal-lm, got 'vit'"):
        make_classifier(tmp_path / "vit" / "final.safetensors", "full", torch_stream(0, "x"))


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, [1 - step / 10 for step in range(10)]),
        ({"warmup_steps": 3}, [1 / 4, 2 / 4, 3 / 4, *(1 - step / 7 for step in range(7))]),
        ({"warmup_steps": 1, "schedule": "constant"}, [1 / 2, *[1.0] * 9]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]),
        ({"min_lr_ratio": 0.5}, [1 - step / 20 for step in range(10)]),
        ({"schedule": "wsd", "wsd_decay_share": 0.4, "min_lr_ratio": 0.2}, [*[1.0] * 7, 0.8, 0.6, 0.4]),
    ],
    ids=str,
)
def test_tied_updates_learn_at_the_rates_of_plain_ones(
    glue: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, options: Any, shares: list[float]
) -> None:
    seen: list[set[float]] = []
    step = torch.optim.AdamW.step

    def spied(self: Any, *arguments: Any) -> Any:
        step(self, *arguments)
        seen.append({group["lr"] for group in self.param_groups})

    spied.hooked = True  # type: ignore[attr-defined]  # as torch marks a step that runs hooks itself
    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    examples, _ = encode(load_glue("sst2", "train", glue), load_tokenizer("bytes"), 24)
    file, config = runs["bert"] / "final.safetensors", TuningConfig(epochs=2, **options)
    tune(make_classifier(file, "lora", torch_stream(0, "head")), examples, config, 0)
    plain, seen[:] = list(seen), []
    tune_adapters(file, examples, config, 0, lambda n_layer: make_controller("random", n_layer, 0), k=3)
    assert [rate for rates in plain for rate in rates] == pytest.approx([0.003 * share for share in shares])
    assert [list(rates) for rates in seen] == [pytest.approx(list(rates)) for rates in plain]


def test_too_few_steps_for_a_decision_are_refused(glue: Path, runs: dict[str, Path]) -> None:
    examples, _ = encode(load_glue("sst2", "train", glue), load_tokenizer("bytes"), 24)
    with pytest.raises(ValueError, match="160 examples make 5 training steps, and the first decision comes after k=5"):
        tune_adapters(
            runs["bert"] / "final.safetensors",
            examples,
            TuningConfig(epochs=1),
            0,
            lambda n_layer: make_controller("random", n_layer, 0),
            k=5,
        )


def test_a_schedule_that_cannot_be_is_named(
    glue: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"warmup_steps": math.nan}, r"warmup_steps must be int, got nan \(float\)"),
        ({"batch_size": 2.5}, r"batch_size must be int, got 2.5 \(float\)"),
        ({"learning_rate": "x"}, r"learning_rate must be float or none, got 'x' \(str\)"),
        ({"epochs": math.nan}, "epochs must be a finite number above 0, got nan"),
        ({"schedule": "falling"}, "schedule must be one of 'constant', 'linear', 'cosine', 'wsd', got 'falling'"),
        ({"min_lr_ratio": -0.1}, "min_lr_ratio must be from 0 to 1, got -0.1"),
        ({"schedule": "constant", "min_lr_ratio": 0.1}, "min_lr_ratio applies only to a schedule that falls"),
        ({"wsd_decay_share": 0.3}, "wsd_decay_share applies only to schedule='wsd': leave it out, got 0.3"),
        ({"schedule": "wsd", "wsd_decay_share": 0.0}, "wsd_decay_share must be above 0 and at most 1, got 0.0"),
    ]
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            TuningConfig(**settings)
    with pytest.raises(ValueError, match="warmup_steps must be at most 3, for 160 examples make 5 training steps"):
        TuningConfig(1.0, schedule="wsd", wsd_decay_share=0.4, warmup_steps=4).steps(160)
    options = ["--task", "sst2", "--data", str(glue), "--seeds", "1", "--epochs", "1", "--warmup-steps", "5"]
    assert start("finetune", [str(runs["gpt2"]), *options]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "warmup_steps must be at most 4, for 160 examples make 5 training steps, got 5" in shown


def test_divergence_is_no_score(glue: Path, runs: dict[str, Path]) -> None:
    examples, _ = encode(load_glue("sst2", "train", glue), load_tokenizer("bytes"), 24)
    file = runs["gpt2"] / "final.safetensors"
    with pytest.raises(FloatingPointError, match=r"training diverged at step 2 of 5: lower the learning rate"):
        tune(
            make_classifier(file, "full", torch_stream(0, "x")),
            examples,
            TuningConfig(epochs=1, learning_rate=1e30),
            0,
        )
    lost = make_classifier(file, "head", torch_stream(0, "x"))
    with torch.no_grad():
        lost.head.weight[0, 0] = torch.inf
    with pytest.raises(FloatingPointError, match="scores of the classifier are not finite"):
        predict(lost, examples)


def test_the_script_prints_a_table_over_seeds_and_continues_from_its_file(
    glue: Path,
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "new" / "r.json"
    options = ["--task", "mrpc", "--data", str(glue), "--epochs", "2", "--batch-size", "1", "--out", str(out)]
    some = [str(runs["bert"]), *options, "--seeds", "1", "--methods", "full"]
    assert start("finetune", some) == 0
    assert "do not fit" not in capsys.readouterr().out
    (first,) = json.loads(out.read_text())["results"]
    rows = ["--methods", "full", "lora", "head", "--adapters", "random", "--k", "15"]
    asked = [str(runs["gpt2"]), str(runs["bert"]), *options, "--seeds", "2", *rows]
    assert start("finetune", asked) == 1
    assert "2 examples make 4 training steps, and the first decision comes after k=15" in capsys.readouterr().out
    rows[-1] = asked[-1] = "1"
    assert start("finetune", asked) == 1
    assert f"{out} holds results of other settings: k is 15 there, 1 here. Choose another --out" in "".join(
        capsys.readouterr().out.splitlines()
    )
    assert start("finetune", [*some, "--k", "1", "--out", str(tmp_path / "r.json")]) == 0
    stored = json.loads((tmp_path / "r.json").read_text())
    assert (stored["settings"].pop("warmup_steps"), stored["settings"].pop("schedule")) == (0, "linear")
    (tmp_path / "r.json").write_text(json.dumps(stored))  # as an earlier version wrote it
    asked += ["--out", str(tmp_path / "r.json")]
    # 1. Stopped in the middle, what was done is there.
    made = []

    def stop(*arguments: Any) -> Any:
        made.append(arguments)
        if len(made) == 3:
            raise KeyboardInterrupt
        return tune(*arguments)

    monkeypatch.setattr(finetuning, "tune", stop)
    assert start("finetune", asked) == 130
    assert "resumes from there" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "r.json").read_text())["results"]) == 1 + 2
    # 2. The same command makes the others.
    monkeypatch.setattr(finetuning, "tune", tune)
    assert start("finetune", asked) == 0
    shown = capsys.readouterr().out
    assert "MRPC, development split: mean (standard deviation) over 2 seeds" in shown
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert len(results) == 2 * 5 * 2
    assert results[0] | {"seconds": 0} == first | {"seconds": 0}
    adapters = {row["method"]: row["independent_adapters"] for row in results if "independent_adapters" in row}
    assert adapters.keys() == {"lora, tied by conventional", "lora, tied by random"}
    assert adapters["lora, tied by conventional"] == 4
    monkeypatch.setattr(finetuning, "tune", None)  # nothing is made again
    monkeypatch.setattr(finetuning, "encode", lambda rows, tokenizer, _: encode(rows, tokenizer, 2))
    assert start("finetune", asked) == 0
    assert "100% of the sentences do not fit its 24 tokens, and lose" in " ".join(capsys.readouterr().out.split())


def test_the_script_says_what_diverged_and_what_is_not_there(
    glue: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--task", "sst2", "--data", str(glue), "--seeds", "2", "--epochs", "1"]
    assert start("finetune", [str(runs["gpt2"]), *options, "--learning-rate", "1e30"]) == 0
    shown = capsys.readouterr().out
    assert "seed 1: training diverged at step 2 of 5" in shown
    assert shown.count("diverged: 2") == 1
    assert start("finetune", [str(tmp_path), *options]) == 1
    assert "there is no network file" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("{}")
    for out in ("other.json", "other.json/below"):
        assert start("finetune", [str(runs["gpt2"]), *options, "--out", str(tmp_path / out)]) == 1
    shown = "".join(capsys.readouterr().out.splitlines())
    assert "other.json exists already and holds no such results" in shown
    assert "Not a directory" in shown or "exists" in shown
    with pytest.raises(SystemExit):
        start("finetune", ["--help"])
    shown = capsys.readouterr().out
    assert shown.count("\n layer-tying finetune ") + shown.count("\nlayer-tying finetune ") == 2
