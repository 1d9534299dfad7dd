"""Networks of the user's own in a file outside of the package: `model="my_net.py:make_network"`."""

import copy
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_model
from tying_agents.config_files import NamesCode
from tying_agents.many.checks import refuse_changes
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run

from tests.own_networks import DATA, TEXT, action, make, settings
from tests.reliability.runs import Watcher, interrupt, outcome
from tying_env import EnvConfig, OwnNetwork, plugins
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied
from tying_env.plugins import ForeignCodeError, describe_object
from tying_env.primary.assembly import settled
from tying_env.primary.own import make_own, own_network
from tying_env.runs import load_network, load_run, save_network


@pytest.fixture(params=["text", "data"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Import strings by kind."""
    for name, source in (("text", TEXT), ("data", DATA)):
        (tmp_path / f"{name}.py").write_text(source)
    return {name: f"{tmp_path / name}.py:make_network" for name in ("text", "data")}


def test_a_network_of_a_file_trains_is_measured_restored_and_forked_to_the_bit(
    files: dict[str, str], kind: str, text_folder: Path
) -> None:
    env, twin = (make(files[kind], kind, text_folder) for _ in range(2))
    assert env.config.n_layer == (4 if kind == "text" else 3)
    assert env.config.model == files[kind]
    env.reset(seed=3)
    _, reward, terminated, _, info = env.step(action(env))
    assert reward < 0
    assert not terminated
    assert np.isfinite(info["validation_perplexity"])
    twin.load_state_dict(copy.deepcopy(env.state_dict()))
    fork = env.fork()
    expected = env.step(action(env, 1))
    np.testing.assert_equal([twin.step(action(env, 1)), fork.step(action(env, 1))], [expected, expected])
    assert env.evaluate("test", 0) == fork.evaluate("test", 0)
    assert (env.evaluate("test", 0).bits_per_byte is not None) == (kind == "text")


def test_weights_follow_from_the_seed(files: dict[str, str], text_folder: Path) -> None:
    module = files["data"].replace("make_network", "module_in_it")
    for spec, kind in ((files["text"], "text"), (files["data"], "data"), (module, "data")):
        env = make(spec, kind, text_folder, validate_every=0)
        drawn = []
        for seed in (0, 1, 0):
            env.reset(seed=seed)
            drawn.append(next(iter(env.trainer.named_tensors().values())).clone())
        assert torch.equal(drawn[0], drawn[2])
        assert not torch.equal(drawn[0], drawn[1])


def test_the_loss_on_text_is_the_cross_entropy_of_the_next_tokens(files: dict[str, str], text_folder: Path) -> None:
    env = make(files["text"], "text", text_folder)
    env.reset(seed=0)
    windows = torch.as_tensor(np.array(env.windows("test", 0)), dtype=torch.int64)
    with torch.no_grad():
        scores = env.trainer.network.model.eval()(windows[:, :-1])
    expected = torch.nn.functional.cross_entropy(scores.transpose(1, 2), windows[:, 1:])
    assert env.evaluate("test", 0).mean_loss == pytest.approx(expected.item(), rel=1e-5)


def test_a_network_file_is_read_only_with_the_users_word_for_its_code(
    files: dict[str, str], kind: str, text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = make(files[kind], kind, text_folder)
    env.reset(seed=0)
    env.step(action(env))
    path = tmp_path / "net"
    save_network(path, env.trainer, env.config, env.workload.sizes)
    with pytest.raises(
        ValueError, match=r"net was made by code of the user's own, '.*:make_network', and a file never"
    ):
        load_network(path)
    saved = load_network(path, model=files[kind])
    assert saved.config == env.config
    assert env.workload.evaluate(saved.network.model, "test", 0, env.device) == env.evaluate("test", 0)
    assert saved.tying == env.tying.tolist()
    # The same code elsewhere is the same code; other code is not.
    source = Path(files[kind].removesuffix(":make_network"))
    moved, other = tmp_path / "moved.py", tmp_path / "other.py"
    moved.write_text(source.read_text())
    other.write_text(source.read_text() + "\n# changed\n")
    assert load_network(path, model=f"{moved}:make_network").config.model == f"{moved}:make_network"
    with pytest.raises(ValueError, match=r"net was made by '.*'; '.*other\.py:make_network' is other code"):
        load_network(path, model=f"{other}:make_network")


def test_changed_code_under_the_same_name_is_said(
    tmp_path: Path, text_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = f"{tmp_path / 'late.py'}:make_network"
    (tmp_path / "late.py").write_text(TEXT)
    config = EnvConfig(model=spec, **settings("text", text_folder))
    env = LayerTyingEnv(**vars(config))
    env.reset(seed=0)
    sizes = {**env.workload.sizes, "code": describe_object(spec) | {"sha256": "of an earlier version"}}
    save_network(tmp_path / "net", env.trainer, env.config, sizes)
    with caplog.at_level(logging.WARNING, "tying_env"):
        load_network(tmp_path / "net", model=spec)
    assert "late.py:make_network has changed since" in caplog.text


def test_a_run_directory_holds_the_code_and_is_read_and_resumed_with_it_named(
    files: dict[str, str], kind: str, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = EnvConfig(model=files[kind], **settings(kind, text_folder))
    asked = RunConfig(agent="random", env=env, checkpoint_every=2, test_windows=0)
    whole, status = run(RunConfig(**vars(asked) | {"run_dir": tmp_path / "whole"}), [Watcher()])
    assert status == "finished"
    about = whole.read_json("config.json")
    assert about["data"]["code"] == describe_object(files[kind])
    assert about["env"]["n_layer"] == (4 if kind == "text" else 3)
    with pytest.raises(ValueError, match="a file never makes code run"):
        load_run(whole.path)
    loaded = load_run(whole.path, model=files[kind])
    assert (loaded.tokenizer is not None) == (kind == "text")
    result = loaded.open_workload().evaluate(loaded.model, "test", 0, torch.device("cpu"))
    assert result.perplexity == pytest.approx(whole.read_json("summary.json")["test"]["best"]["perplexity"])
    stopping = Watcher(lambda decision: interrupt() if decision == 3 else None)
    part, status = run(RunConfig(**vars(asked) | {"run_dir": tmp_path / "part"}), [stopping])
    assert status == "interrupted"
    with pytest.raises(NamesCode, match="a file never makes code run"):
        resume(part.path, [Watcher()])
    with monkeypatch.context() as patch:
        patch.setitem(plugins._hashes, Path(files[kind].removesuffix(":make_network")).resolve(), "of a later version")
        copied = Path(shutil.copytree(part.path, tmp_path / "copied"))
        assert resume(copied, [watcher := Watcher()], asked)[1] == "finished"
    assert re.search(
        r"has changed since this run began \(sha256 [0-9a-f]{8} then, of a lat now\); results", str(watcher.notes)
    )
    assert resume(part.path, [Watcher()], asked)[1] == "finished"
    assert outcome(part.path) == outcome(whole.path)


def test_the_number_of_blocks_is_n_layer(files: dict[str, str], text_folder: Path) -> None:
    three = files["text"].replace("make_network", "three_layers")
    usual = {name: value for name, value in settings("text", text_folder).items() if name != "n_layer"}
    assert settled(EnvConfig(model=three, **usual)).n_layer == 3
    assert settled(settled(EnvConfig(model=three, **usual))).n_layer == 3
    with pytest.raises(ValueError, match="n_layer is the number of blocks, 3, got 4"):
        make(three, "text", text_folder)
    assert settled(EnvConfig(model=files["data"])).validate_every == 50
    assert settled(EnvConfig(model=files["data"].replace("make_network", "module_in_it"))).validate_every == 0
    assert settled(config := EnvConfig()) is config


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (
            "def f(config): raise KeyError('mine')",
            ForeignCodeError,
            r"bad\.py:f raised KeyError while it made a network",
        ),
        (
            "def f(config): return 3",
            TypeError,
            r"bad\.py:f must return an nn\.Module or a tying_env\.OwnNetwork, got int: 3",
        ),
        ("def f(): pass", ForeignCodeError, "takes 0 positional arguments"),
        ("f = 3", TypeError, "must be a function that makes a network, got int"),
        ("def g(config): pass", ImportError, r"has no 'f', expected a function that makes a network"),
        (
            "import torch\ndef f(config): return torch.nn.Linear(2, 2)",
            ValueError,
            "Linear has no nn.ModuleList of blocks",
        ),
        (
            "import tying_env\ndef f(config): return tying_env.OwnNetwork(lambda: 1 / 0)",
            ForeignCodeError,
            "ZeroDivisionError while it made a network",
        ),
        (
            "import tying_env\ndef f(config): return tying_env.OwnNetwork(lambda: 1, test=[1])",
            ValueError,
            "examples to measure on, and no batches",
        ),
        (TEXT + "def f(config): return Net(9, 4, 2)", ForeignCodeError, None),
        (
            TEXT + "def f(config): return Net(255, 16, 4)",
            ValueError,
            r"scores 255 tokens, the tokenizer 'bytes' has 256",
        ),
        (
            TEXT + "class Odd(Net):\n    def forward(self, ids): return super().forward(ids)[0]\n"
            "def f(config, vocab_size): return Odd(vocab_size, 16, 4)",
            TypeError,
            r"must return logits \(B, T, V\).*returned a tensor of shape \(2, 256\)",
        ),
    ],
)
def test_what_a_function_makes_is_checked(
    tmp_path: Path, text_folder: Path, body: str, error: type[Exception], message: str | None
) -> None:
    (tmp_path / "bad.py").write_text(body)
    if message is None:  # nothing is wrong that two tokens of 0 can show but the vocabulary
        error, message = ValueError, "scores 9 tokens"
    with pytest.raises(error, match=message):
        make(f"{tmp_path}/bad.py:f", "text", text_folder, **({"n_layer": 12} if "9, 4, 2" in body else {}))


def test_settings_that_do_not_apply_are_refused() -> None:
    EnvConfig(model="my_net.py:f", n_embd=100, n_head=3)
    for name, value in (("mask_seed", 1), ("augment", "crop"), ("init_from", "folder"), ("delta_rank", 2)):
        with pytest.raises(ValueError, match=rf"{name} does not apply to the model 'my_net\.py:f'"):
            EnvConfig(model="my_net.py:f", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokenizer='checkpoint' is that of a checkpoint"):
        EnvConfig(model="my_net.py:f", tokenizer="checkpoint")
    with pytest.raises(ValueError, match=r"model must be one of 'gpt2', .* or an import string .* got 'gtp2'"):
        EnvConfig(model="gtp2")
    with pytest.raises(TypeError, match="blocks is for a network of your own"):
        LayerTyingEnv(model="my_net.py:f", blocks="layers")


def test_parts_are_named_at_the_front_door(files: dict[str, str]) -> None:
    parts = make_own(EnvConfig(model=files["data"]))
    assert type(parts) is OwnNetwork
    assert parts.blocks == "layers"
    import tying_env

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        tying_env.Nothing  # noqa: B018


def test_the_file_in_the_documentation_trains(text_folder: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "doors" / "network.md").read_text(encoding="utf-8")
    source = page.split("```python\n")[1].split("```")[0]
    assert source.startswith("# my_net.py")
    assert len(source.splitlines()) <= 25
    (tmp_path / "my_net.py").write_text(source)
    env = make(f"{tmp_path}/my_net.py:make_network", "text", text_folder)
    env.reset(seed=0)
    before = env.evaluate("validation").mean_loss
    env.step(np.array([0, 0, 2, 3]))
    env.trainer.train(30)
    assert env.evaluate("validation").mean_loss < before


def test_the_weights_of_a_module_are_exported(
    files: dict[str, str], kind: str, text_folder: Path, tmp_path: Path
) -> None:
    env = make(files[kind], kind, text_folder)
    env.reset(seed=0)
    env.step(action(env))
    tied = load_tied(export_tied(env, tmp_path / "tied"), model=own_network(env.config).model)
    assert env.workload.evaluate(tied, "test", 0, env.device) == env.evaluate("test", 0)
    export_tied(env, tmp_path / "dense", dense=True)
    model = own_network(env.config).model
    load_model(model, tmp_path / "dense" / "model.safetensors")
    assert env.workload.evaluate(model, "test", 0, env.device) == env.evaluate("test", 0)
    card = (tmp_path / "dense" / "README.md").read_text()
    assert describe_object(files[kind])["sha256"] in card
    assert ("A token is a byte" in card) == (kind == "text")


def test_the_same_comparison_again_makes_no_run_again(
    files: dict[str, str], text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs say three layers, what is asked for says nothing of layers."""
    monkeypatch.chdir(tmp_path)
    usual = {name: value for name, value in settings("text", text_folder).items() if name != "n_layer"}
    env = EnvConfig(model="text.py:three_layers", **usual)
    config = RunConfig(agent="conventional", env=env, run_dir=tmp_path / "run", label="own")
    directory, _ = run(config, [Watcher()])
    refuse_changes(config)
    with pytest.raises(ValueError, match=r"is a finished run with other settings: env\.k is 2 there, 3 here"):
        refuse_changes(RunConfig(**vars(config) | {"env": EnvConfig(**vars(env) | {"k": 3})}))
    assert directory.read_json("config.json")["env"]["n_layer"] == 3
