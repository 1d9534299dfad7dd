"""Units finer than blocks: sublayers of every architecture, modules of the user's own choice, and what is refused."""

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import nn
from tying_agents.controllers.base import Context, Controller
from tying_agents.registry import find_agent
from tying_agents.running.agents import drive_agent
from tying_agents.settings import GroupsConfig, HalvingConfig, PatternConfig, SharedConfig

from tests.models import FAMILIES, L, Mixed, make_env, make_model, own
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied
from tying_env.kinds import Kinds
from tying_env.primary.blocks import find_blocks
from tying_env.primary.units import bundle, check_units, sublayers
from tying_env.runs import load_network, save_network

SUBLAYERS = Kinds.one_after_the_other((L, L), ("attention", "feed-forward"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sublayers_of_a_block_are_found_and_are_all_of_it(family: str) -> None:
    model = make_model(family)
    for path in find_blocks(model):
        block = model.get_submodule(path)[-1]  # type: ignore[index]
        parts = sublayers(block)
        assert list(parts) == ["attention", "feed-forward"]
        units = [(kind, bundle(block, paths)) for kind, paths in parts.items()]
        whole = dict(block.named_parameters())
        named = {
            kind: [f"{at}.{name}".lstrip(".") for name, _ in unit.named_parameters()] for kind, (at, unit) in units
        }
        assert sorted(name for names in named.values() for name in names) == sorted(whole)
        assert all(32 not in whole[name].shape for name in named["attention"])  # the feed-forward part's width


@pytest.mark.parametrize(
    ("block", "attention"),
    [
        (nn.TransformerEncoderLayer(4, 2, 8), {"self_attn", "norm1"}),
        (nn.TransformerDecoderLayer(4, 2, 8), {"self_attn", "multihead_attn", "norm1", "norm2"}),
    ],
)
def test_the_sublayers_of_torchs_own_blocks_are_found(block: nn.Module, attention: set[str]) -> None:
    parts = sublayers(block)
    assert set(parts["attention"]) == attention
    assert {"linear1", "linear2"} < set(parts["feed-forward"])


def test_a_block_whose_parts_are_not_known_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"not known whether '0' of a Sequential belongs .* units="):
        own(units="sublayers")
    gated = nn.TransformerEncoderLayer(4, 2, 8)
    gated.gate = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="'gate' of a TransformerEncoderLayer is in neither"):
        sublayers(gated)
    with pytest.raises(ValueError, match="has no feed-forward part that is known by its name"):
        sublayers(nn.ModuleDict({"attn": nn.Linear(2, 2)}))


def steps(env: LayerTyingEnv, actions: list[list[int]]) -> list[Any]:
    env.reset(seed=3)
    return [env.step(np.array(action)) for action in actions]


@pytest.mark.parametrize("model", ["gpt2", "bert"])
def test_sublayers_are_tied_each_within_its_kind(model: str, tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"model": model, "units": "sublayers"})
    observation, info = env.reset(seed=0)
    assert (env.n_units, env.config.n_layer) == (2 * L, L)
    assert observation.tolist() == [0] * 8
    assert info["tying"].tolist() == [0] * L + [L] * L
    observation, *_, info = env.step(np.array([0, 0, 2, 2, 0, 1, 1, 3]))
    assert observation.tolist() == [0, 0, 2, 2, 0, 1, 1, 3]
    assert info["tying"].tolist() == [0, 0, 2, 2, 4, 5, 5, 7]
    blocks = env.trainer.network.blocks
    parts = [(sublayers(block), block) for block in blocks]

    def shared(kind: str) -> list[bool]:
        """Tell for each two neighbours whether they share this part."""
        own = [[p for path in part[kind] for p in block.get_submodule(path).parameters()] for part, block in parts]
        found = [{p is q for p, q in zip(a, b, strict=True)} for a, b in itertools.pairwise(own)]
        assert all(len(each) == 1 for each in found)
        return [each.pop() for each in found]

    assert shared("attention") == [True, False, True]
    assert shared("feed-forward") == [False, True, False]
    unique = {id(p): p.numel() for p in env.trainer.network.model.parameters()}
    assert info["trainable_parameters"] == sum(unique.values())


def test_at_the_frozen_start_both_sublayers_of_the_first_block_train(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"units": "sublayers"})
    env.reset(seed=0)
    trained = [[p.requires_grad for p in block.parameters()] for block in env.trainer.network.blocks]
    assert all(trained[0])
    assert not any(any(own) for own in trained[1:])


@pytest.mark.parametrize(
    "settings", [{}, {"gradient": "leader"}, {"residual_scale": "sqrt"}, {"tied_parameters": "matrices"}]
)
def test_sublayers_that_are_tied_alike_train_as_blocks_do(settings: dict[str, Any], tiny: dict[str, Any]) -> None:
    actions = [[0, 0, 1, 3], [0, 1, 0, 2], [0, 0, 0, 0], [0, 1, 2, 3]]
    whole = steps(LayerTyingEnv(**tiny | settings), actions)
    halves = steps(LayerTyingEnv(**tiny | settings | {"units": "sublayers"}), [action * 2 for action in actions])
    for (_, *expected, one), (_, *found, two) in zip(whole, halves, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
        assert two["trainable_parameters"] == one["trainable_parameters"]
        assert two["independent_layers"] == 2 * one["independent_layers"]


@pytest.mark.parametrize("model", ["GPT2", "BERT", "ViT", "Llama"])
def test_the_registered_environments_hold_what_gymnasium_asks(model: str, tiny: dict[str, Any]) -> None:
    small = {"n_layer": 2, "n_embd": 8, "n_head": 2, "batch_size": 2, "k": 1, "total_steps": 3, "validation_windows": 4}
    text = {} if model == "ViT" else {"dataset": tiny["dataset"], "seq_len": 8}
    env = gym.make(f"LayerTying-{model}-Sublayers-v0", **small, **text)
    assert env.action_space == gym.spaces.MultiDiscrete([1, 2, 1, 2])
    check_env(env.unwrapped, skip_render_check=True)


def test_a_saved_state_a_fork_and_a_file_continue_with_the_same_bits(tiny: dict[str, Any], tmp_path: Path) -> None:
    make = lambda: LayerTyingEnv(**tiny | {"units": "sublayers"})  # noqa: E731
    env, twin = make(), make()
    steps(env, [[0, 0, 1, 3, 0, 1, 1, 1], [0, 1, 1, 0, 0, 0, 2, 2]])
    fork, action = env.fork(), np.array([0, 1, 0, 1, 0, 1, 2, 0])
    twin.reset(options={"state": env.state_dict()})
    save_network(tmp_path / "network", env.trainer, env.config, env.workload.sizes)
    expected = env.step(action)
    for other in (fork, twin):
        assert repr(other.step(action)) == repr(expected)
    saved = load_network(tmp_path / "network")
    assert saved.tied.tying.tolist() == [0, 1, 1, 0, 4, 4, 6, 6]
    assert saved.tied.sources().tolist() == saved.tied.tying.tolist()


def test_networks_of_a_batch_are_their_single_twins(tiny: dict[str, Any]) -> None:
    settings = tiny | {"units": "sublayers", "dropout": 0.1, "optimizer_state": "reset", "group_lr": "sqrt"}
    several: Any = gym.make_vec("LayerTying-GPT2-v0", num_envs=2, vectorization_mode="vector_entry_point", **settings)
    single, rng = LayerTyingEnv(**settings), np.random.default_rng(0)
    several.reset(seed=[5, 6])
    single.reset(seed=6)
    for _ in range(4):
        actions = np.stack([single.kinds.uniform_action(rng) for _ in range(2)])
        observations, rewards, *_, infos = several.step(actions)
        observation, reward, *_, info = single.step(actions[1])
        assert observations[1].tolist() == observation.tolist()
        assert rewards[1] == pytest.approx(reward, rel=1e-5)
        assert infos["trainable_parameters"][1] == info["trainable_parameters"]
        assert infos["tying"][1].tolist() == info["tying"].tolist()


def test_the_sublayers_of_a_t5_are_tied_within_stack_and_shape() -> None:
    env = make_env("t5", units="sublayers", unequal_blocks="within-kind")
    assert env.kinds.lowest.tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 6, 6, 10, 10, 10, 10]
    env.reset(seed=0)
    observation, _, terminated, *_ = env.step(np.zeros(14, dtype=np.int64))
    assert not observation.any()
    assert not terminated


OWN_UNITS = {"in": [f"layers.{i}.0" for i in range(3)], "out": [(f"layers.{i}.2",) for i in range(3)]}


@pytest.mark.parametrize("name", ["checkpoint_blocks", "compile_blocks"])
def test_what_is_about_blocks_is_refused_where_units_stand_in_their_place(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is about blocks, and with units='own' the network names other"):
        own(units=OWN_UNITS, **{name: True})


def test_modules_of_the_users_choice_are_units(tmp_path: Path) -> None:
    env = own(units=OWN_UNITS)
    assert (env.config.units, env.config.n_layer, env.n_units) == ("own", 6, 6)
    assert env.kinds.names == ("in", "out")
    env.reset(seed=0)
    *_, info = env.step(np.array([0, 0, 0, 0, 1, 1]))
    assert info["tying"].tolist() == [0, 0, 0, 3, 4, 4]
    layers = env.trainer.network.model.get_submodule("layers")
    assert layers[0][0].weight is layers[2][0].weight  # type: ignore[index]
    assert layers[0][2].weight is not layers[1][2].weight  # type: ignore[index]
    export_tied(env, tmp_path / "exported")
    again = load_tied(tmp_path / "exported", model=Mixed((4, 4, 4)))
    x = torch.randn(5, 3)
    assert torch.equal(again(x), env.trainer.network.model.eval()(x))


def test_a_unit_of_several_modules_is_tied_as_one() -> None:
    whole, model = {"block": [(f"layers.{i}.0", f"layers.{i}.2") for i in range(3)]}, Mixed((4, 4, 4))
    found = [steps(env, [[0, 0, 0], [0, 1, 0]]) for env in (own(model, units=whole), own(model))]
    assert [step[1] for step in found[0]] == [step[1] for step in found[1]]
    assert found[0][-1][-1]["trainable_parameters"] == found[1][-1][-1]["trainable_parameters"]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({}, "at least one kind"),
        ({"a": []}, "units of the kind 'a' must be a list of paths, at least one"),
        ({"a": "layers.0"}, "units of the kind 'a' must be a list"),
        ({"a": [3]}, "a unit of the kind 'a' must be a path or a list of paths, got 3"),
        ({"a": [("layers.0", None)]}, r"must be a path or a list of paths, got \('layers.0', None\)"),
        ({"a": [()]}, "a unit of the kind 'a' names no modules"),
        ({"a": ["layers.0", "layers.9"]}, "at 'layers.9' there is none"),
        ({"a": ["layers.0", "layers.0.2"]}, "those at 'layers.0' and 'layers.0.2' have"),
        ({"a": ["layers.0", "layers.0"]}, "those at 'layers.0' and 'layers.0' have"),
    ],
)
def test_units_that_do_not_exist_or_overlap_are_refused(units: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        check_units(Mixed((4, 4, 4)), units)


def test_settings_that_do_not_go_together_are_refused(tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="units='own' are those that a network of your own names"):
        LayerTyingEnv(**tiny | {"units": "own"})
    with pytest.raises(ValueError, match="and it names none"):
        own(units="own")
    with pytest.raises(ValueError, match="leave blocks out"):
        own(units=OWN_UNITS, blocks="layers")
    with pytest.raises(ValueError, match="units must be"):
        LayerTyingEnv(**tiny | {"units": "heads"})
    with pytest.raises(ValueError, match="does not apply to a ViT's sublayers"):
        LayerTyingEnv(model="vit", units="sublayers", residual_scale="sqrt")
    with pytest.raises(ValueError, match="units must be one of 'block', 'sublayers', 'own', got 'sublayer'"):
        own(units="sublayer")
    with pytest.raises(ValueError, match=r"'0\.weight' is .* in layers\.0 \(a\) and missing in single \(a\)"):
        own(units={"a": ["layers.0", "single"]}, model=Mixed((4, 4, 4)))


def made(agent: str, settings: Any = None) -> Controller:
    found = find_agent(agent)
    return found.make(found.settings() if settings is None else settings, Context(2 * L, 0, of_kinds=SUBLAYERS))


@pytest.mark.parametrize(
    ("agent", "settings", "expected"),
    [
        ("conventional", None, [0, 1, 2, 3, 0, 1, 2, 3]),
        ("albert", None, [0] * 8),
        ("cycle", GroupsConfig(2), [0, 1, 0, 1] * 2),
        ("sandwich", None, [0, 1, 1, 3] * 2),
        ("contiguous", GroupsConfig(2), [0, 0, 2, 2] * 2),
        ("prior", None, [0, 1, 1, 1] * 2),
        ("shared-attention", None, [0, 0, 0, 0, 0, 1, 2, 3]),
        ("shared-attention", SharedConfig(2), [0, 0, 2, 2, 0, 1, 2, 3]),
        ("shared-feed-forward", None, [0, 1, 2, 3, 0, 0, 0, 0]),
        ("shared-feed-forward", SharedConfig(1, 2), [0, 0, 2, 2, 0, 0, 0, 0]),
    ],
)
def test_patterns_are_laid_over_each_kind(agent: str, settings: Any, expected: list[int]) -> None:
    action = made(agent, settings).act(np.zeros(8, dtype=np.int64))
    assert SUBLAYERS.is_canonical(action)
    assert action.tolist() == expected


def test_random_tyings_have_as_many_groups_in_each_kind() -> None:
    for agent in ("random-static", "random-redrawn"):
        own_tyings = SUBLAYERS.tyings(SUBLAYERS.units_named(made(agent).act(np.zeros(8, dtype=np.int64))))
        assert [len(set(tying.tolist())) for tying in own_tyings] == [2, 2]


def test_what_cannot_be_shared_alone_or_tied_across_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="to share attention alone it must be a unit of its own: use units='sublayers'"
    ):
        find_agent("shared-attention").make(SharedConfig(), Context(4, 0))
    with pytest.raises(ValueError, match="between 1 and the number of layers 4, got 5"):
        made("shared-feed-forward", SharedConfig(5))
    with pytest.raises(ValueError, match="other_groups must be at least 0, got -1"):
        SharedConfig(1, -1)
    (tmp_path / "pattern").write_text("0 1 2 3 0 4 4 4")
    with pytest.raises(ValueError, match=r"ties feed-forward 0 \(number 4 of all\) to attention 0 \(number 0\)"):
        made("pattern", PatternConfig(tmp_path / "pattern"))
    (tmp_path / "pattern").write_text("0 0 2 3 4 4 4 7")
    assert made("pattern", PatternConfig(tmp_path / "pattern")).act(np.zeros(8)).tolist() == [0, 0, 2, 3, 0, 0, 0, 3]


AGENTS = (
    "dqn",
    "layer-sweep-dqn",
    "hill-climbing",
    "halving",
    "probe-then-tie",
    "share-then-split",
    "evolution",
    "ppo",
)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_decides_about_sublayers(agent: str, tiny: dict[str, Any]) -> None:
    small = {"units": "sublayers", "n_layer": 3, "n_embd": 8, "seq_len": 4, "batch_size": 1, "validate_every": 0}
    env = LayerTyingEnv(**tiny | small | {"total_steps": 200 if agent == "halving" else 16, "k": 1})
    settings = HalvingConfig(candidates=4) if agent == "halving" else None
    loop = drive_agent(agent, env, settings=settings, seed=1)
    assert loop.over
    assert env.train_step + env.trial_steps <= env.total_steps
