"""A configuration that is written is read back as it was, none included, for every setting there is."""

import dataclasses
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from tying_agents.config_files import overlaid, read_config_file, to_toml
from tying_agents.none_in_toml import takes_the_word, without_none
from tying_agents.registry import agent_names
from tying_agents.run_config import RunConfig

from tests.own_code import layer_tying, write
from tying_env import PRESETS, EnvConfig

Capture = pytest.CaptureFixture[str]

# Between them every setting has a use.
ENVS = [
    EnvConfig(),
    *(EnvConfig(**settings | {"model": model}) for (model, _), settings in PRESETS.items()),
    EnvConfig(schedule="wsd"),
    EnvConfig(optimizer="sgd"),
    EnvConfig(model="mine.py:make"),
    EnvConfig(residual_scale="sqrt"),
    EnvConfig(delta_rank=1),
    EnvConfig(adaptive_halting=True),
]


def read_back(config: RunConfig, folder: Path, named: tuple[str, ...] = ()) -> RunConfig:
    (folder / "run.toml").write_text(to_toml(config), encoding="utf-8")
    return overlaid(RunConfig(), read_config_file(folder / "run.toml", named), "run.toml")


def others(hint: Any, value: Any) -> Iterator[Any]:
    """Yield other values that a field of this type may have."""
    for kind in get_args(hint) or (hint,):
        if kind is type(None):
            yield None
        elif get_origin(kind) is Literal or get_origin(hint) is Literal:
            yield from get_args(kind) or get_args(hint)
        elif kind is bool:
            yield not value
        elif kind is int:
            yield from (2 * (value or 1), (value or 0) + 1, 3)
        elif kind is float:
            yield from ((value or 1.0) / 2, 0.5, 1.0, float("inf"))
        elif kind in (str, Path):
            yield from (kind("none"), kind("a/b"))


def changed(settings: Any, but: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield (field, settings with another value of it), for all values that it takes alone; fields of `but` are not."""
    for field in dataclasses.fields(settings):
        if field.name in but:
            continue
        for value in others(get_type_hints(type(settings))[field.name], getattr(settings, field.name)):
            try:
                yield field.name, dataclasses.replace(settings, **{field.name: value})
            except ValueError:  # not alone
                continue


def test_every_setting_of_the_environment_is_read_back_as_it_was(tmp_path: Path) -> None:
    usual, tried = EnvConfig(), set()
    for base in ENVS:
        news = [env for _, env in changed(base, tried)]
        for config in (RunConfig(env=env) for env in (base, *news)):
            assert read_back(config, tmp_path, ("mine.py:make",)) == config
            tried |= {name for name, value in vars(config.env).items() if value != getattr(usual, name)}
    assert tried == {field.name for field in dataclasses.fields(EnvConfig)}


@pytest.mark.parametrize("agent", agent_names())
def test_every_setting_of_an_agent_is_read_back_as_it_was(agent: str, tmp_path: Path) -> None:
    usual = RunConfig(agent=agent)
    assert read_back(usual, tmp_path) == usual
    for name, settings in changed(usual.controller):
        config = RunConfig(agent=agent, controller=settings)
        assert read_back(config, tmp_path) == config, name


def test_every_setting_is_printed_but_texts_and_paths_that_are_none() -> None:
    plain = tomllib.loads(to_toml(RunConfig(agent="ppo")))
    assert plain["env"]["warmup_steps"] == "none"
    assert plain["controller"]["sb3_learning_rate"] == "none"
    left_out = {field.name for field in dataclasses.fields(EnvConfig)} - set(plain["env"])
    assert left_out == {"cache_dir", "init_from"}
    assert {field.name for field in dataclasses.fields(RunConfig)} - set(plain) == {"run_dir", "label"}


OWN = """
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tying_agents import Controller


class Mine(Controller):
    @dataclass(frozen=True)
    class Settings:
        opt: float | None = 0.5
        choice: Literal["a", "b"] | None = "a"
        sizes: tuple[int, ...] | None = (1, 2)
        temperature: float = 1.0
        text: str | None = "x"

    def __init__(self, settings, context):
        self.n_units = context.n_units

    def act(self, observation):
        return np.arange(self.n_units)
"""


def test_a_setting_of_an_own_agent_that_is_none_stays_none(tmp_path: Path, capsys: Capture) -> None:
    spec = f"{write(tmp_path, 'mine.py', OWN)}:Mine"
    given = ["--opt", "None", "--choice", "None", "--sizes", "None", "--temperature", "inf"]
    file = tmp_path / "o.toml"
    for options in (given, ["--choice", "b", "--sizes", "3", "4"]):
        assert layer_tying(capsys, "run", "--agent", spec, *options, "--print-config")[0] == 0
        config = overlaid(RunConfig(), {"agent": spec}, "")
        kind = type(config.controller)
        own = kind(opt=None, choice=None, sizes=None, temperature=float("inf")) if options is given else None
        config = dataclasses.replace(config, controller=own or kind(choice="b", sizes=(3, 4)))
        assert read_back(config, tmp_path, (spec,)) == config
        code, out = layer_tying(
            capsys, "run", "--config", file.with_name("run.toml"), "--agent", spec, "--print-config"
        )
        assert code == 0, out
        assert out == " ".join(to_toml(config).split())
    code, out = layer_tying(capsys, "run", "--agent", spec, "--text", "None", "--print-config")
    assert code == 1
    assert "controller.text is None, and a configuration file cannot say so" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('[env]\nk = "none"', "k must be int, got 'none'"),
        ('[controller]\nchoice = "c"', "controller.choice must be one of 'a', 'b', None, got 'c'"),
        ('[controller]\ntemperature = "none"', "controller.temperature must be float, got 'none'"),
    ],
)
def test_the_word_is_refused_where_a_setting_cannot_be_none(
    tmp_path: Path, capsys: Capture, line: str, message: str
) -> None:
    spec = f"{write(tmp_path, 'mine.py', OWN)}:Mine"
    (tmp_path / "run.toml").write_text(f'agent = "{spec}"\n{line}\n')
    code, out = layer_tying(capsys, "run", "--config", tmp_path / "run.toml", "--agent", spec, "--print-config")
    assert code == 1
    assert message in out


@pytest.mark.parametrize(
    ("hint", "takes"),
    [
        (float | None, True),
        (bool | int | None, True),
        (tuple[str, ...] | None, True),
        (Literal["a", "b"] | None, True),
        (Literal["none", "b"] | None, False),
        (str | None, False),
        (Path | None, False),
        (float, False),
        (object, False),
        (Any, False),
    ],
)
def test_the_word_is_none_only_where_no_text_can_be_meant(hint: Any, takes: bool) -> None:
    assert takes_the_word(hint) is takes


def test_an_optional_list_is_a_list_when_it_is_there() -> None:
    assert without_none(tuple[int, ...] | None) == tuple[int, ...]
    assert without_none(float | None) == float | None
