"""The DQN that learns on the tying table, and plans for any number of layers."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tying_agents.commands import pretrain as command
from tying_agents.controllers.base import Context
from tying_agents.controllers.patterns import contiguous
from tying_agents.controllers.pretrained import (
    FEATURES,
    PACKAGED,
    Ensemble,
    candidates,
    features_of,
    load_values,
    plan,
    save_values,
)
from tying_agents.pretraining import judged, pretrain
from tying_agents.registry import find_agent

from tests.tables import made_up_table, written
from tests.tiny_runs import tiny_run
from tying_env.kinds import Kinds
from tying_env.partition import all_tyings, leaders
from tying_env.runs import RunDirectory
from tying_env.table import CorpusTable, open_table

OWN_FIRST = 4  # the place of "the first layer is alone" among the features


@pytest.fixture(scope="module")
def first_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in which a tying is good if its first layer is alone, and nothing else matters but noise."""
    table = made_up_table()
    alone = np.array([np.count_nonzero(tying == 0) == 1 for tying in table.tyings])
    noise = np.random.default_rng(0).normal(0, 0.02, table.corpora["sotu"].losses.shape)
    losses = 3.0 - 0.3 * alone[:, None, None] + noise
    sotu = dataclasses.replace(table.corpora["sotu"], losses=losses)
    assert isinstance(sotu, CorpusTable)
    return written(
        tmp_path_factory.mktemp("table"), dataclasses.replace(table, corpora={**table.corpora, "sotu": sotu})
    )


def by_feature(number: int, sign: float = 1.0) -> Ensemble:
    """Values that are one of the features."""
    values = Ensemble(1, hidden_units=2)
    with torch.no_grad():
        for p in values.parameters():
            p.zero_()
        for layer in (0, 2, 4):
            values[0][layer].weight[0, number if layer == 0 else 0] = sign if layer == 4 else 1.0
    return values


def test_features_have_the_right_values() -> None:
    found = features_of(np.array([[0, 1, 1, 0, 4, 5], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]]), 4)
    assert found.shape == (3, FEATURES)
    of_groups = [1 / 4, 1 / 4, (2 + 2 * 2**0.46) / 6, 2 / 6, 0, 1]
    alone_in_thirds, followers = [0, 0, 1], [1 / 2, 2 / 6, 0]  # layer 2 copies the one before it; 1-2 and 0-3 are tied
    pairs = [0, 2 / 4, 0, 0, 0, 0]  # between thirds: of the first two layers and the next two, 1-2 and 0-3 of four
    np.testing.assert_allclose(found[0], [*of_groups, *alone_in_thirds, *followers, *pairs], rtol=1e-6)
    np.testing.assert_allclose(found[1][:9], [1 / 6, 1 / 4, 1, 1 / 6, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(found[2][-9:], [1, (5 + 8 + 9 + 8 + 5) / 15 / 6, 1, *[1] * 6], rtol=1e-6)


@pytest.mark.parametrize("n_units", [1, 2, 5, 12, 30])
def test_features_lie_between_0_and_1_for_any_number_of_layers(n_units: int) -> None:
    rng = np.random.default_rng(0)
    found = features_of(np.array([Kinds.alike(n_units).uniform_action(rng) for _ in range(20)]), 1)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("n_units", [2, 6, 13])
def test_moves_lead_to_what_is_valued(n_units: int) -> None:
    tied = np.zeros(n_units, dtype=np.int64)
    found = plan(by_feature(OWN_FIRST), tied, 3)
    assert np.count_nonzero(found == 0) == 1 and len(leaders(found)) <= 3
    assert np.array_equal(plan(by_feature(OWN_FIRST, -1.0), contiguous(n_units, 2), 2)[:2], [0, 0]) or n_units == 2
    assert np.array_equal(plan(by_feature(OWN_FIRST), tied, 1), tied)  # no more groups than there may be


def test_candidates_are_the_tyings_one_move_away() -> None:
    tyings = list(all_tyings(4))
    for most in (1, 2, 4):
        for tying, to in zip(tyings, candidates(tyings, most), strict=True):
            assert np.array_equal(tyings[to[0]], tying)
            for place in to[1:]:
                there = tyings[place]
                moved = [np.delete(there, i) for i in range(4)], [np.delete(tying, i) for i in range(4)]
                same = [np.array_equal(a[:, None] == a, b[:, None] == b) for a, b in zip(*moved, strict=True)]
                assert any(same) and len(leaders(there)) <= most


def test_it_learns_what_the_table_says_and_not_what_a_shuffled_one_does(first_alone: Path) -> None:
    def regrets(shuffled: bool) -> list[float]:
        values = pretrain("sotu", first_alone, 0, 150, 2, shuffled, lambda done, total: None)
        found = judged(values, "sotu", first_alone)
        assert [each.groups for each in found] == [1, 2, 3, 4, 5, 6]
        assert found[0].tying == [0] * 6 and found[0].regret == 0
        assert found[2].regrets["own-first"] < 2 < found[2].regrets["contiguous"]  # of exp(2.7) and exp(3.0)
        return [each.regret for each in found[1:]]

    assert max(regrets(False)) < 2
    assert max(regrets(True)) > 2


def test_equal_seeds_learn_equal_bits(first_alone: Path) -> None:
    one, same, other = (pretrain("sotu", first_alone, seed, 3, 2, False, lambda *_: None) for seed in (1, 1, 2))
    for a, b, c in zip(*(values.parameters() for values in (one, same, other)), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_command_writes_what_the_agent_reads(
    first_alone: Path, tmp_path: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "values.npz"
    words = [f"--table={first_alone}", "--updates=100", "--members=2", f"--out={path}"]
    assert command.main(words) == 0
    out = capsys.readouterr().out
    assert "updates 200/200" in out and "contiguous" in out and "0.000" in out
    assert out.index("on sotu, which it learned from") < out.index("on other, which it has not seen")
    with np.load(path) as file:
        header = str(file["header"])
    assert open_table(first_alone).sha256_of("sotu") in header and '"shuffled": false' in header
    kept = {"values": path, "groups": 2, "begin": "contiguous"}
    agent = find_agent("pretrained-dqn")
    made: Any = agent.make(agent.settings(**kept), Context(9, 0))
    assert np.array_equal(made.act(np.arange(9)), plan(load_values(path), contiguous(9, 2), 2))


def test_the_packages_values_are_learned_from_the_packages_table() -> None:
    with np.load(PACKAGED) as file:
        about = json.loads(str(file["header"]))
    assert (about["table"], about["corpus"], about["shuffled"]) == (open_table().sha256_of("sotu"), "sotu", False)


def test_the_packages_values_serve_any_network(tmp_path: Path, text_folder: Path) -> None:
    values, agent = load_values(PACKAGED), find_agent("pretrained-dqn")
    for n_units in (1, 2, 6, 12, 24):
        for groups in range(1, min(n_units, 4) + 1):
            made: Any = agent.make(agent.settings(groups=groups), Context(n_units, 0))
            tying = made.initial_tying()
            assert len(leaders(tying)) <= groups
            assert np.array_equal(made.act(np.zeros(n_units, dtype=np.int64)), tying)
            assert groups == 1 or np.count_nonzero(tying == 0) == 1  # what the table says above all
    path = tiny_run(tmp_path / "run", text_folder, agent="pretrained-dqn", units="sublayers")
    last = RunDirectory(path).read_metrics()[-1]["tying"]
    assert plan(values, np.array([0, 1, 1, 1]), 2).tolist() == last[:4] == [each - 4 for each in last[4:]]


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "values.npz"
    save_values(Ensemble(2), path, {"seed": 0})
    whole = path.read_bytes()
    for damaged in (whole[:-200], whole[: len(whole) // 2], b"no archive", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"values\.npz has no values that layer-tying pretrain wrote"):
            load_values(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"that layer-tying pretrain wrote: it holds one array, and no names"):
        load_values(path)
    np.savez(path, header=np.array('{"format": "something else"}'))
    with pytest.raises(ValueError, match=r"of the format 'something else', not 'pretrained dqn 1'"):
        load_values(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        load_values(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 5}, "groups must be between 1 and the number of layers 4, got 5"),
        ({"groups": -1}, "groups must be at least 0, got -1"),
        ({"begin": "middle"}, "begin must be one of .*, got 'middle'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    agent = find_agent("pretrained-dqn")
    with pytest.raises(ValueError, match=message):
        agent.make(agent.settings(**settings), Context(4, 0))


@pytest.mark.parametrize("option", ["updates=0", "members=0", "seed=-1", "threads=0"])
def test_wrong_options_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(SystemExit):
        command.main([f"--{option}"])
    assert re.search(rf"{name} must be .*at least ., got {value}", capsys.readouterr().err)


def test_a_missing_folder_is_said_before_it_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--out=missing/values.npz"]) == 1
    assert "the folder of missing/values.npz is not there" in capsys.readouterr().out
