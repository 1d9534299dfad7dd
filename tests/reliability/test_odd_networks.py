"""Thousands of random small networks: tied exactly as a plainly copied network computes, or refused by name."""

import collections
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models import TRAIN, squares
from tests.reliability import odd
from tests.reliability.conftest import Counts
from tests.reliability.odd import WIDTH, Odd
from tying_env import partition
from tying_env.env import LayerTyingEnv
from tying_env.primary.trainer import Trainer

X = torch.linspace(-1, 1, 8 * WIDTH).reshape(8, WIDTH)
BATCH = X, X.sum(1, keepdim=True)
NAMED = re.compile(r"'first.weight'|is still the original's|of the model that it is a copy of")


def outputs(model: Any) -> list[Tensor]:
    """Return what every block and the network give."""
    found: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda m, i, output: found.append(output)) for block in model.blocks]
    with torch.no_grad():
        result = model.eval()(X)
    for hook in hooks:
        hook.remove()
    return [*found, result]


def alike(trained: nn.Module, plain: nn.Module) -> bool:
    return all(torch.equal(ours, theirs) for ours, theirs in zip(outputs(trained), outputs(plain), strict=True))


def names(block: nn.Module) -> list[str]:
    return [name for name, p in block.named_parameters() if p.requires_grad]


def oracle(trainer: Trainer, plain: Any, action: list[int]) -> bool:
    """Tie, and copy plainly: W'[i] = W[s'[i]]; return whether every layer computes the same afterwards."""
    tying = partition.canonicalise(action).tolist()
    model: Any = trainer.network.model
    plain.load_state_dict(model.state_dict())
    tied = names(plain.blocks[0])
    before = [{name: block.get_parameter(name).detach().clone() for name in tied} for block in model.blocks]
    trainer.tie(action)
    with torch.no_grad():
        for block, leader in zip(plain.blocks, tying, strict=True):
            for name in tied:
                block.get_parameter(name).copy_(before[leader][name])
    return alike(model, plain)


def gradients_add_up(trainer: Trainer, plain: Any, gradient: str) -> bool:
    """Return whether a leader's gradient is the sum over its group in a network with plain copies, or its own part."""
    model: Any = trainer.network.model
    for network in (model.eval(), plain.eval()):  # running means stay as they are
        network.zero_grad()
        squares(network, BATCH).backward()
    leaders = trainer.tied.tying.tolist()
    for leader in set(leaders):
        members = [leader] if gradient == "leader" else [i for i, other in enumerate(leaders) if other == leader]
        for name in names(plain.blocks[0]):
            expected = sum(plain.blocks[i].get_parameter(name).grad for i in members)
            found = model.blocks[leader].get_parameter(name).grad
            if found is None or not torch.allclose(found, expected, rtol=1e-3, atol=1e-5):
                return False
    model.zero_grad()
    return True


def live(network: Odd, rng: np.random.Generator) -> str:
    """Tie a network now and then while it trains; return what came of it."""
    gradient = str(rng.choice(["shared", "leader"]))
    settings = TRAIN | {"gradient": gradient, "freeze_at_start": bool(rng.random() < 0.5), "learning_rate": 0.05}
    try:
        model = network.make if network.made else network.make()
        if not network.made:
            odd.GLOBAL["weights"] = [block.first.weight for block in model.blocks]  # type: ignore[union-attr]
        env = LayerTyingEnv(model=model, batches=BATCH, loss=squares, blocks="blocks", **settings)
        env.reset(seed=int(rng.integers(1000)))
        held = odd.GLOBAL.get("weights")
        plain = network.make().to(torch.float32)  # as the setting `dtype` says
        for _ in range(3):
            action = [int(rng.integers(i + 1)) for i in range(network.n_layer)]
            odd.GLOBAL["weights"] = held
            exact = oracle(env.trainer, plain, action)
            if network.sound:
                assert exact, network
                assert gradients_add_up(env.trainer, plain, gradient), network
            env.trainer.train(1)
            if network.sound:
                plain.load_state_dict(env.trainer.network.model.state_dict())
                assert alike(env.trainer.network.model, plain), network
    except ValueError as error:
        assert not network.sound, (network, error)
        assert NAMED.search(str(error)), error
        return "refused"
    assert network.sound, network
    return "tied"


@pytest.mark.filterwarnings("ignore:.*weights are not part of single contiguous chunk.*:UserWarning")
def test_odd_networks_are_tied_exactly_or_refused_by_name(full: bool, counts: Counts) -> None:
    rng, came = np.random.default_rng(0), collections.Counter[str]()
    for _ in range(times := 10_000 if full else 40):
        network = odd.draw(rng)
        torch.manual_seed(int(rng.integers(2**31)))
        came[live(network, rng)] += 1
    assert min(came["tied"], came["refused"]) > times // 8
    counts.add("odd networks", times, f"{came['tied']:,} tied as an oracle says, {came['refused']:,} refused by name")
