"""Thousands of malformed actions and settings: an error that says what is wrong, and nothing has changed."""

import dataclasses
import gc
import math
import os
import time
from pathlib import Path
from typing import Any, get_args, get_type_hints

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.reliability.conftest import Counts
from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.partition import is_tying, validate_action
from tying_env.runs.state_tree import part


def bits(env: LayerTyingEnv) -> Any:
    """Return everything the environment is, comparable."""
    plain, tensors = part(env.state_dict())
    return plain, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def malformed(rng: np.random.Generator, n_layer: int) -> Any:
    """Return something that is no action, or now and then one."""
    valid = [int(rng.integers(i + 1)) for i in range(n_layer)]
    wrong = list(valid)
    wrong[rng.integers(n_layer)] = int(rng.choice([-1, n_layer, 10**30, -(10**30), 2**63]))
    choices: list[Any] = [
        valid,
        wrong,
        valid[:-1],
        [*valid, 0],
        [],
        None,
        "0123",
        b"0000",
        3,
        math.nan,
        [math.nan] * n_layer,
        [0.5] * n_layer,
        np.array(valid, dtype=np.float32),
        np.array([valid]),
        np.array(valid, dtype=object),
        [None] * n_layer,
        [[0]] * n_layer,
        {"action": valid},
        dict(enumerate(valid)),
        [True] * n_layer,
        rng.integers(-3, n_layer + 3, size=n_layer),
        rng.normal(size=n_layer),
        np.zeros((0,)),
        torch.zeros(n_layer),
        object(),
        [complex(0, 1)] * n_layer,
        ["0"] * n_layer,
        np.array(["a"] * n_layer),
        slice(0, 4),
        iter(valid),
    ]
    return choices[int(rng.integers(len(choices)))]


def test_malformed_actions_are_refused_and_change_nothing(env: LayerTyingEnv, full: bool, counts: Counts) -> None:
    env.reset(seed=0)
    env.step(np.array([0, 1, 1, 0]))
    before, rng, refused, valid = bits(env), np.random.default_rng(0), 0, 0
    for i in range(times := 10_000 if full else 2_000):
        action = malformed(rng, 4)
        try:
            accepted = validate_action(action, 4)
        except (ValueError, TypeError) as error:
            assert str(error)
            refused += 1
            with pytest.raises((ValueError, TypeError)):
                env.step(action)
            if i % 50 == 0:
                assert bits(env) == before, action
        else:
            assert ((accepted >= 0) & (accepted <= np.arange(4))).all()
            valid += 1
    assert bits(env) == before
    assert refused > times // 2
    counts.add("actions, random and malformed", times, f"{refused} refused, {valid} valid")
    env.step(np.array([0, 0, 0, 0]))
    assert is_tying(env.tying)


def test_fuzzed_settings_are_refused_by_name_or_work(
    tiny: dict[str, Any], full: bool, counts: Counts, recwarn: pytest.WarningsRecorder
) -> None:
    rng, hints = np.random.default_rng(0), get_type_hints(EnvConfig)
    odd = [0, -1, 1, 2, 3, 0.5, -0.5, math.nan, math.inf, 10**12, "", "x", "cpu", None, True, [], {}, b"x", 1e308, "\0"]
    refused = worked = 0
    for _ in range(times := 10_000 if full else 1_000):
        names = rng.choice([f.name for f in dataclasses.fields(EnvConfig)], size=int(rng.integers(1, 4)), replace=False)
        changed = {}
        for name in names:
            literal = get_args(hints[name])
            pool = odd + [value for value in literal if isinstance(value, str)]
            changed[str(name)] = pool[int(rng.integers(len(pool)))]
        try:
            config = EnvConfig.from_settings(tiny | changed)
        except (ValueError, TypeError) as error:
            assert any(name in str(error) for name in [*changed, *tiny]), (changed, error)
            refused += 1
            continue
        assert isinstance(config.n_layer, int)
        worked += 1
    assert refused
    assert worked
    counts.add("settings fuzzed", times, f"{refused} refused by name, {worked} sound")
    with pytest.raises(TypeError, match="unknown setting 'n_layers'; did you mean 'n_layer'"):
        gym.make("LayerTying-GPT2-v0", n_layers=3)


def test_memory_and_file_handles_do_not_grow(tiny: dict[str, Any], full: bool, counts: Counts) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("reads the process's size from /proc")
    env = LayerTyingEnv(**tiny | {"total_steps": 3})
    seconds, rng = 1800.0, np.random.default_rng(0)

    def episode(seed: int) -> None:
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(np.array([rng.integers(i + 1) for i in range(4)]))
            over = terminated or truncated
        env.fork().close()

    def held() -> tuple[int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

    for seed in range(20):  # what is made once is made now
        episode(seed)
    (memory, handles), episodes, began = held(), 0, time.monotonic()
    while time.monotonic() - began < seconds if full else episodes < 40:
        episode(episodes)
        episodes += 1
    after, handles_after = held()
    assert handles_after == handles
    grown = (after - memory) / 1e6
    assert grown < (20 if full else 10), f"{grown:.1f} MB more after {episodes} episodes"
    remark = f"in {time.monotonic() - began:,.0f} s; {memory / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB after"
    remark += f", {handles} file handles"
    counts.add("episodes of a soak", episodes, remark)
