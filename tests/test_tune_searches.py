"""What a sweep can search, and what is refused with nothing written."""

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tying_agents.commands.tune import main as tune
from tying_agents.many.tuning.search import parse_searches, possible, with_values
from tying_agents.settings import DQNConfig

from tests.sweeps import RATES, base, found, options


@pytest.mark.parametrize(
    ("text", "group", "probes"),
    [
        ("learning-rate: log 1e-4..1e-2", "env", (1e-4, 1e-2)),
        ("n_embd: 16..64 step 16", "env", (16, 64)),
        ("hidden-units: log 8..512", "controller", (8, 512)),
        ("--epsilon-floor: 0..0.3", "controller", (0.0, 0.3)),
        ("gradient: shared | leader", "env", ("shared", "leader")),
        ("freeze-at-start: true | false", "env", (True, False)),
        ("dropout: 0 | 0.1 | 0.2", "env", (0.0, 0.1, 0.2)),
        ("rewards: none | log-perplexity+clipped", "", ((), ("log-perplexity", "clipped"))),
        ("episodes: 1..3", "", (1, 3)),
    ],
)
def test_any_setting_of_environment_agent_and_run_can_be_searched(text: str, group: str, probes: Sequence[Any]) -> None:
    search = found(text)
    assert (search.group, search.probes()) == (group, tuple(probes))
    assert [type(value) for value in search.probes()] == [type(value) for value in probes]
    for value in probes:
        config = with_values(base(), [(search, value)])
        assert getattr(getattr(config, group) if group else config, search.name) == value


def test_what_the_storage_keeps_is_read_back_as_the_value() -> None:
    for text in ("rewards: none | log-perplexity+clipped", "freeze-at-start: true | false", "dropout: 0 | 0.1"):
        search = found(text)
        stored = json.loads(json.dumps(search.stored()))
        assert [search.value(each) for each in stored] == list(search.choices)
    assert found("n-embd: 16..64 step 16").grid() == (16, 32, 48, 64)
    assert found("dropout: 0..0.4 step 0.1").grid() == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))
    assert found(RATES).grid() is None


def test_a_value_that_needs_another_searched_one_is_accepted() -> None:
    searches = parse_searches(["double-q: true | false", "target-every: 0..10 step 5"], base())
    assert isinstance(possible(searches, base()).controller, DQNConfig)
    with pytest.raises(ValueError, match="double_q needs target_every of at least 2"):
        parse_searches(["double-q: true | false"], base())


WRONG = [
    ([], "nothing is searched"),
    (["learning-rat: 0..1"], "did you mean learning-rate?"),
    (["groups: 1..3"], "there is no setting 'groups' of the agent 'dqn'"),
    (["learning-rate"], 'must read "NAME: SPEC"'),
    (["learning-rate: 1e-3"], "one value is no search"),
    (["learning-rate: 1e-2..1e-4"], "the range must go up"),
    (["learning-rate: log 0..1"], "must begin above 0, got 0"),
    (["learning-rate: 0..inf"], "high must be a finite number, got 'inf'"),
    (["learning-rate: -1..1"], "learning_rate must be a finite number above 0, got -1.0"),
    (["learning-rate: log 1e-4..1e-2 step 2"], "a logarithmic range has no step"),
    (["learning-rate: 1e-4..1e-2 by 3"], "a range must read"),
    (["n-layer: 2..4.5"], "high must be a whole number, got '4.5'"),
    (["n-layer: 2..7 step 2"], "HIGH must be LOW and a number of steps: 6 or 8, got 7"),
    (["n-embd: 16..33"], "33"),
    (["gradient: shared | leaders"], "gradient must be one of 'shared', 'leader', got 'leaders'"),
    (["gradient: 0..1"], "gradient is no number"),
    (["double-q: true | yes"], "double-q must be true or false, got 'yes'"),
    (["dropout: 0 | 0.0"], "choices must be different ones, got '0.0' twice"),
    ([RATES, "learning_rate: 1e-3 | 1e-2"], "learning-rate is searched twice"),
    (["seed: 0..5"], "seed cannot be searched"),
    (["agent: dqn | random"], "compare agents with `layer-tying compare`"),
    (["device: cpu | cuda"], "device cannot be searched"),
    (["validate-every: 0 | 5"], "validate_every must be at least 1"),
]


@pytest.mark.parametrize(("searches", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_searches_are_refused(searches: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_searches(searches, base())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "did you mean learning-rate?"),
        (["--trials", "0"], "trials must be at least 1, got 0"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--sampler", "grid"], "learning-rate has endlessly many values"),
        (["--sampler", "cmaes"], "the sampler 'cmaes' needs the package cmaes: pip install 'tying-env[search]'"),
        (["--validate-every", "0"], "validate_every must be at least 1"),
        (["--dataset", "no/such/folder"], "no/such/folder"),
        (["--agent", "replay"], "needs --trace"),
        (["--groups", "2"], "--groups is an option of random-static"),
    ],
)
def test_wrong_sweeps_are_refused_with_nothing_written(
    arguments: list[str],
    message: str,
    text_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *at: None if name == "cmaes" else find(name, *at))
    out = tmp_path / "out"
    searched = ["--search", RATES if arguments else "learning-rat: 0..1"]
    assert tune([*searched, *options(out, text_folder), *arguments]) == 1
    assert message in " ".join(capsys.readouterr().out.split())
    assert not out.exists()
