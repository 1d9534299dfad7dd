"""Thousands of random small networks: tied exactly as a plainly copied network computes, or refused by name."""

import collections
import re

import numpy as np
import pytest
import torch

from tests.models import TRAIN, squares
from tests.oracle import PlainCopy
from tests.reliability import odd
from tests.reliability.conftest import Counts
from tests.reliability.odd import WIDTH, Odd
from tying_env.env import LayerTyingEnv

X = torch.linspace(-1, 1, 8 * WIDTH).reshape(8, WIDTH)
BATCH = X, X.sum(1, keepdim=True)
NAMED = re.compile(r"'first.weight'|is still the original's|of the model that it is a copy of")


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
        # In float32, as the setting `dtype` says.
        plain = PlainCopy(env.trainer, network.make().to(torch.float32), lambda model: squares(model, BATCH))
        for _ in range(3):
            action = [int(rng.integers(i + 1)) for i in range(network.n_layer)]
            odd.GLOBAL["weights"] = held
            plain.tie(action)
            if network.sound:
                assert plain.computes_alike(), network
                assert plain.gradients_add_up(gradient), network
            env.trainer.train(1)
            if network.sound:
                plain.follow()
                assert plain.computes_alike(), network
    except ValueError as error:
        assert not network.sound, (network, error)
        assert NAMED.search(str(error)), error
        return "refused"
    assert network.sound, network
    return "tied"


@pytest.mark.parametrize("first", range(0, 10_000, 2_000))  # parts for several processes or sittings: -k 4000
@pytest.mark.filterwarnings("ignore:.*weights are not part of single contiguous chunk.*:UserWarning")
def test_odd_networks_are_tied_exactly_or_refused_by_name(first: int, full: bool, counts: Counts) -> None:
    came = collections.Counter[str]()
    for seed in range(first, first + (times := 2_000 if full else 12)):
        rng = np.random.default_rng(seed)
        network = odd.draw(rng)
        torch.manual_seed(seed)
        came[live(network, rng)] += 1
    assert min(came["tied"], came["refused"]) > times // 8
    told = f"{came['tied']:,} tied as an oracle says, {came['refused']:,} refused by name"
    counts.add(f"odd networks from {first} on", times, told)
