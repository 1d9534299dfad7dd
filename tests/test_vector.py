"""Vector environments: Gymnasium's, Stable-Baselines3's, and our own, whose networks train as one."""

import copy
import dataclasses
import pickle
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.started import code
from tying_env import partition
from tying_env.config import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.vector import VectorTyingEnv
from tying_env.vector.supported import ANY_VALUE, THESE_VALUES, check_supported

CHOICES: list[dict[str, Any]] = [
    {"dropout": 0.2},
    {"dropout": 0.2, "seq_len": 70, "batch_size": 2},  # attention in two blocks of rows
    {"gradient": "leader", "group_lr": "sqrt", "optimizer_state": "reset"},
    {"freeze_at_start": False, "reward_timing": "after_tying", "reward_batches": 2, "group_lr": "linear"},
    {"schedule": "wsd", "warmup_steps": 2, "wsd_decay_share": 0.5, "min_lr_ratio": 0.0, "group_lr": "sqrt"},
    {"beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "dropout": 0.0, "freeze_at_start": False, "schedule": "cosine"},
    # A large vocabulary: the head computes network by network.
    {"tokenizer": "gpt2", "dropout": 0.1, "batch_size": 2, "k": 1, "total_steps": 5},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_each_network_trains_as_its_single_twin(tiny: dict[str, Any], choice: dict[str, Any]) -> None:
    # In double precision, so that a mistake of arithmetic cannot pass for rounding.
    settings = tiny | {"learning_rate": 3e-3, "total_steps": 9, "max_grad_norm": 0.5, "dtype": "float64"} | choice
    several = VectorTyingEnv(3, **settings)
    singles = [LayerTyingEnv(**settings) for _ in range(3)]
    several.reset(seed=[5, 6, 7])
    for seed, single in zip((5, 6, 7), singles, strict=True):
        single.reset(seed=seed)
    rng = np.random.default_rng(0)
    for _ in range(4):
        actions = np.stack([partition.uniform_random_action(4, rng) for _ in singles])
        observations, rewards, terminated, truncated, infos = several.step(actions)
        for n, single in enumerate(singles):
            observation, reward, over, cut, info = single.step(actions[n])
            np.testing.assert_array_equal(observations[n], observation)
            assert rewards[n] == pytest.approx(reward, rel=1e-9)
            assert (terminated[n], truncated[n]) == (over, cut)
            for name, value in info.items():
                np.testing.assert_allclose(infos[name][n], value, rtol=1e-9, err_msg=name)
    for n, single in enumerate(singles):  # and so do the weights, where a layer leads
        for layer in partition.leaders(several.batch.tying[n]):
            own = torch.cat([p.detach().flatten() for p in single.trainer.network.blocks[layer].parameters()])
            torch.testing.assert_close(several.batch.parts[0].rows.values[n, layer], own, rtol=1e-6, atol=1e-8)


# In bfloat16 past the 256 steps that it can count.
@pytest.mark.parametrize(("dtype", "decisions", "tolerance"), [("float32", 4, 1e-3), ("bfloat16", 14, 0.05)])
def test_it_learns_as_its_single_twin_in_every_precision(
    tiny: dict[str, Any], dtype: str, decisions: int, tolerance: float
) -> None:
    settings = tiny | {"learning_rate": 3e-3, "k": 20, "total_steps": 300, "validate_every": 0, "dtype": dtype}
    settings |= {"n_layer": 3}
    several, single = VectorTyingEnv(1, **settings | {"dropout": 0.0}), LayerTyingEnv(**settings | {"dropout": 0.0})
    several.reset(seed=[5])
    single.reset(seed=5)
    for _ in range(decisions):
        _, _, _, _, infos = several.step(np.array([[0, 1, 0]]))
        info = single.step(np.array([0, 1, 0]))[4]
        assert infos["train_loss"][0] == pytest.approx(info["train_loss"], rel=tolerance)
    assert info["train_loss"] < 3.5


def test_a_network_that_diverges_ends_alone_and_is_reset_by_the_next_step(tiny: dict[str, Any]) -> None:
    several, calm = VectorTyingEnv(2, **tiny), VectorTyingEnv(2, **tiny)
    actions = np.array([[0, 0, 2, 3], [0, 1, 1, 0]])
    for one in (several, calm):
        one.reset(seed=[1, 2])
        one.step(actions)
    several.batch.parts[0].rows.values[0, 0, 3] = torch.nan
    _, rewards, terminated, _, infos = several.step(actions)
    _, expected, *_ = calm.step(actions)
    assert terminated.tolist() == [True, False]
    assert infos["diverged"].tolist() == [True, False]
    assert np.isfinite(rewards).all()
    assert rewards[1] == expected[1]
    observations, rewards, terminated, _, infos = several.step(actions)
    assert rewards[0] == 0
    assert not terminated.any()
    assert observations[0].tolist() == [0, 0, 0, 0]
    assert infos["train_step"].tolist() == [0, 8]
    assert torch.isfinite(several.batch.parts[0].rows.values).all()
    calm.step(actions)
    for _ in range(2):  # one is in the first steps of its new run, the other where it was
        np.testing.assert_equal([part[1] for part in several.step(actions)[:4]], [p[1] for p in calm.step(actions)[:4]])


def test_a_copy_and_a_pickle_continue_with_the_same_bits(tiny: dict[str, Any]) -> None:
    several, actions = VectorTyingEnv(2, **tiny), np.array([[0, 0, 2, 3], [0, 1, 1, 0]])
    several.reset(seed=3)
    several.step(actions)
    twins = [copy.deepcopy(several), pickle.loads(pickle.dumps(several))]
    expected = [several.step(actions[::-1]) for _ in range(2)]
    for twin in twins:
        np.testing.assert_equal([twin.step(actions[::-1]) for _ in range(2)], expected)


def test_bad_seeds_are_refused_before_anything_begins_anew(tiny: dict[str, Any]) -> None:
    several: Any = gym.make_vec("LayerTying-GPT2-v0", num_envs=2, vectorization_mode="vector_entry_point", **tiny)
    several.reset(seed=np.int64(3))
    weights = several.unwrapped.batch.parts[0].rows.values.clone()
    for seed in ([5, -1], 1.5, True, [1]):
        with pytest.raises(ValueError, match="seed must be"):
            several.reset(seed=seed)
    assert torch.equal(several.unwrapped.batch.parts[0].rows.values, weights)


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_gymnasiums_vectorization_modes_work_and_declare_their_autoreset(tiny: dict[str, Any], mode: str) -> None:
    several = gym.make_vec("LayerTying-GPT2-v0", num_envs=2, vectorization_mode=mode, **tiny | {"total_steps": 4})
    try:
        assert several.metadata["autoreset_mode"] == gym.vector.AutoresetMode.NEXT_STEP
        observations, _ = several.reset(seed=3)
        assert observations.tolist() == [[0, 0, 0, 0]] * 2
        several.action_space.seed(0)
        _, rewards, _, truncated, infos = several.step(several.action_space.sample())
        assert truncated.tolist() == [True, True]
        assert infos["train_step"].tolist() == [4, 4]
        assert rewards[0] != rewards[1]
        _, rewards, _, truncated, infos = several.step(several.action_space.sample())  # resets
        assert rewards.tolist() == [0, 0]
        assert infos["train_step"].tolist() == [0, 0]
    finally:
        several.close()


AFTER_TRAINING = """
import gymnasium as gym, torch, tying_env
torch.set_num_threads(2)
torch.ones(10**6).exp()  # begins the other threads
forks = dict(vectorization_mode="async", vector_kwargs={"context": "fork"})
several = gym.make_vec("LayerTying-GPT2-v0", num_envs=2, **forks, **{settings!r})
several.reset(seed=0)
several.step(several.action_space.sample())
several.close()
"""


def test_processes_that_are_forked_from_one_with_threads_do_not_stand_still(tiny: dict[str, Any]) -> None:
    text = AFTER_TRAINING.replace("{settings!r}", repr(tiny | {"n_embd": 256, "batch_size": 8}))
    process = code(text)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output


@pytest.mark.parametrize("kind", ["DummyVecEnv", "SubprocVecEnv"])
def test_stable_baselines3s_vector_environments_work(tiny: dict[str, Any], kind: str) -> None:
    import stable_baselines3.common.vec_env as vec_env
    from stable_baselines3.common.env_util import make_vec_env

    several = make_vec_env(
        "tying_env:LayerTying-GPT2-v0",
        n_envs=2,
        seed=0,
        env_kwargs=tiny | {"total_steps": 4},
        vec_env_cls=getattr(vec_env, kind),
    )
    try:
        assert several.reset().tolist() == [[0, 0, 0, 0]] * 2
        _, rewards, over, infos = several.step(np.array([[0, 1, 2, 3], [0, 0, 0, 0]]))
        assert over.tolist() == [True, True]  # and reset by the same step
        assert all("terminal_observation" in info for info in infos)
        assert np.isfinite(rewards).all()
    finally:
        several.close()


def test_forks_and_copies_share_the_token_memory_map(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    for twin in (env.fork(), copy.deepcopy(env)):
        workload: Any = twin.workload
        own: Any = env.workload
        assert workload.corpus.train is own.corpus.train
        assert isinstance(own.corpus.train, np.memmap)
        batches: Any = twin.trainer.batches
        assert np.shares_memory(batches._tokens, own.corpus.train)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"autocast": True}, "autocast must be False in the vector environment, got True"),
        ({"delta_rank": 2}, "delta_rank must be 0 in the vector environment, got 2"),
        ({"replication": "copied"}, "replication must be 'tied' in the vector environment, got 'copied'"),
        ({"render_mode": "ansi"}, "does not render"),
    ],
)
def test_what_the_vector_environment_does_not_offer_is_refused(
    tiny: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VectorTyingEnv(**tiny | settings)


@dataclass(frozen=True)
class Wider(EnvConfig):
    """The settings and two that someone has added: a new one, and a choice of one that is known."""

    label_smoothing: float = 0.0
    group_lr: Literal["none", "sqrt", "linear", "cube"] = "none"  # type: ignore[assignment]


def test_a_setting_or_choice_that_was_added_is_refused_until_it_is_listed(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tying_env.vector.env.EnvConfig", Wider)
    VectorTyingEnv(2, **tiny)
    with pytest.raises(ValueError, match=r"label_smoothing must be 0\.0 in the vector environment, got 0\.1"):
        VectorTyingEnv(2, **tiny | {"label_smoothing": 0.1})
    with pytest.raises(ValueError, match=r"group_lr must be 'none' or 'sqrt' or 'linear' in the .*, got 'cube'"):
        VectorTyingEnv(2, **tiny | {"group_lr": "cube"})


def test_what_is_listed_as_supported_are_settings_and_their_choices() -> None:
    kinds = get_type_hints(EnvConfig)
    assert set(kinds) >= ANY_VALUE | set(THESE_VALUES)
    assert not [name for name in ANY_VALUE if get_args(kinds[name]) and type(None) not in get_args(kinds[name])]
    for name, values in THESE_VALUES.items():
        assert set(values) <= set(get_args(kinds[name]))
        for value in values:
            check_supported(dataclasses.replace(EnvConfig(), **{name: value}))


def test_a_wrong_action_of_one_changes_nothing_in_any(tiny: dict[str, Any]) -> None:
    several = VectorTyingEnv(2, **tiny)
    with pytest.raises(gym.error.ResetNeeded):
        several.step(np.zeros((2, 4), dtype=np.int64))
    several.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must have the shape \(2, 4\), got \(2, 3\)"):
        several.step(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(ValueError, match=r"action\[1\] is 3"):
        several.step(np.array([[0, 0, 0, 0], [0, 3, 0, 0]]))
    with pytest.raises(ValueError, match="seed must be one number or 2, got 3"):
        several.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="knows no reset options"):
        several.reset(options={"tying": [0, 0, 0, 0]})
    assert several.batch.frozen.all()
