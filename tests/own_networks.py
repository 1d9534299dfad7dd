"""Networks as a user of the package writes them, in files outside of it."""

from pathlib import Path
from typing import Any

import gymnasium as gym

from tests.conftest import TINY
from tying_env.env import LayerTyingEnv

TEXT = """
import torch
from safetensors.torch import load_model
from torch import nn


class Net(nn.Module):
    def __init__(self, vocab_size, width, layers):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers))
        self.head = nn.Linear(width, vocab_size)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def make_network(config, vocab_size):
    return Net(vocab_size, config.n_embd, config.n_layer)


def three_layers(config, vocab_size):
    return Net(vocab_size, 16, 3)
"""

DATA = """
import numpy as np
import torch
from safetensors.torch import load_model
from torch import nn

from tying_env import OwnNetwork


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def loss(model, batch):
    return (model(batch["x"]) - batch["y"]).square().mean()


def examples(count):
    x = np.linspace(-1, 1, 3 * count).reshape(count, 3).astype(np.float32)
    return {"x": x, "y": x[:, ::-1].copy()}


def make_network(config):
    return OwnNetwork(
        Net, batches=examples(50), loss=loss, blocks="layers", validation=examples(9), test=examples(7)
    )


def module_in_it(config):
    return OwnNetwork(Net(), batches=examples(50), loss=loss)
"""


def settings(kind: str, text_folder: Path) -> dict[str, Any]:
    if kind == "text":
        return TINY | {"dataset": str(text_folder)}
    names = ("batch_size", "k", "total_steps", "validate_every", "validation_windows", "device")
    return {name: TINY[name] for name in names}


def make(model: str, kind: str, text_folder: Path, **changed: Any) -> LayerTyingEnv:
    env = gym.make("LayerTying-GPT2-v0", model=model, **settings(kind, text_folder) | changed).unwrapped
    assert isinstance(env, LayerTyingEnv)
    return env


def action(env: LayerTyingEnv, seed: int = 0) -> Any:
    env.action_space.seed(seed)
    return env.action_space.sample()
