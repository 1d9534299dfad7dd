"""Settings of a user's controller: those that command line and files give back are accepted, others refused by name."""

import dataclasses
import enum
import json
import math
import tomllib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import tyro
from tying_agents.config_files import from_plain, to_toml
from tying_agents.controllers.base import Context
from tying_agents.registry import _checked, find_agent
from tying_agents.run_config import RunConfig
from tying_agents.settings import SearchConfig

from tests.own_code import CONTROLLER, write
from tying_env.files import to_json


class Color(enum.Enum):
    """No text, and no number."""

    RED = 1


@dataclasses.dataclass(frozen=True)
class Inner:
    """Settings in settings."""

    width: int = 3


def settings(hint: Any, default: Any) -> type:
    made = dataclasses.make_dataclass("Settings", [("own", hint, field(default=default))], frozen=True)
    made.__module__ = __name__
    return made


@pytest.mark.parametrize(
    ("hint", "default", "words"),
    [
        (int, 3, ["4"]),
        (float, 1, ["0.5"]),
        (bool, False, None),
        (str, "a", ["b"]),
        (Path, Path("a"), ["b"]),
        (Literal["a", "b"], "a", ["b"]),
        (Literal["a", "b"] | None, None, ["b"]),
        (Literal[1, 2], 1, ["2"]),
        (int | None, None, ["4"]),
        (Optional[float], None, ["0.5"]),  # noqa: UP045
        (Path | None, None, ["b"]),
        (int | str, "a", ["4"]),
        (tuple[int, ...], (1, 2), ["3", "4"]),
        (tuple[int, int], (1, 2), ["3", "4"]),
        (tuple[int, ...] | None, None, ["3", "4"]),
        (tuple[Path, ...], (Path("a"),), ["b"]),
        (tuple[Literal["a", "b"], ...], ("a",), ["b"]),
        (Annotated[int, "of a kind"], 3, ["4"]),
    ],
    ids=str,
)
def test_what_is_accepted_comes_back_the_same_from_the_command_line_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hint: Any, default: Any, words: Any
) -> None:
    kind: Any = _checked(settings(hint, default), "mine")
    file = write(tmp_path, "mine.py", f"{CONTROLLER}\nfrom {__name__} import chosen\nMine.Settings = chosen\n")
    monkeypatch.setitem(globals(), "chosen", kind)
    for given in (kind(), tyro.cli(kind, args=["--own", *(words or [])])):
        config = RunConfig(agent=f"{file}:Mine", controller=given)
        for plain in (json.loads(to_json(dataclasses.asdict(config))), tomllib.loads(to_toml(config))):
            back: Any = from_plain(plain, strict=True).controller
            assert (back, repr(back)) == (given, repr(given))


@pytest.mark.parametrize(
    ("hint", "named"),
    [
        (Color, "Color"),
        (Inner, "Inner"),
        (Color | None, "Color | None"),
        (Any, "Any"),
        (object, "object"),
        (bytes, "bytes"),
        (complex, "complex"),
        (set[int], "set[int]"),
        (list[int], "list[int]"),
        (dict[str, int], "dict[str, int]"),
        (tuple, "tuple"),
        (tuple[int, str], "tuple[int, str]"),
        (tuple[Color, ...], "tuple["),
        (tuple[int, ...] | int, "tuple[int, ...] | int"),
        (Path | str, "Path | str"),
        (Literal[Color.RED], "Literal[<Color.RED: 1>]"),
    ],
    ids=str,
)
def test_what_files_or_the_command_line_would_not_give_back_is_refused_by_name(hint: Any, named: str) -> None:
    with pytest.raises(TypeError) as caught:
        _checked(settings(hint, None), "mine")
    expected = (
        "the setting 'own' of the agent 'mine' must be a number, text, path, choice (Literal), a tuple of these or None"
    )
    assert expected in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (float, math.inf),
        (float, None),
        (int, 0.5),
        (Literal["a"], "b"),
        (tuple[float, ...], (math.nan,)),
    ],
)
def test_a_default_that_a_file_would_not_give_back_is_refused(hint: Any, default: Any) -> None:
    with pytest.raises(TypeError, match=r"must have a default of its type, .* and finite, got"):
        _checked(settings(hint, default), "mine")


def test_a_type_that_is_not_there_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the types of the settings of the agent 'mine' cannot be had: .*Absent"):
        _checked(settings("Absent", 1), "mine")


def test_an_infinite_value_that_a_file_would_not_give_back_is_refused() -> None:
    agent = find_agent("annealing")
    with pytest.raises(ValueError, match="the setting 'temperature' of the agent 'annealing' must be finite, got inf"):
        agent.make(SearchConfig(temperature=math.inf), Context(4, 0))
