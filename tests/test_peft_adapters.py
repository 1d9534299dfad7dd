"""Adapters of any kind, in a network that stands still otherwise: all that trains in a block is tied."""

import numpy as np
import pytest
import torch

from tests.adapters import adapted
from tests.families import tokens
from tests.models import TRAIN
from tying_env.env import LayerTyingEnv

# Of all kinds the page of `make matrix` tells; these are the ones that most people have.
USUAL = ("lora", "dora", "lora, biases", "lora, modules_to_save", "lora, norms", "lora, everything", "adalora", "ia3")


@pytest.mark.parametrize("kind", [*USUAL, "loha", "lokr", "oft", "boft", "hra", "vera", "fourierft", "layer norms"])
def test_all_that_trains_in_a_block_is_tied_and_computes_as_if_copied(kind: str) -> None:
    settings = TRAIN | {"learning_rate": 0.05}
    env = LayerTyingEnv(model=lambda: adapted(kind), batches=lambda rng: tokens(rng), **settings)
    env.reset(seed=0)
    for action in ([0, 0, 2, 2], [0, 1, 0, 0]):
        env.step(np.array(action))
    trainer = env.trainer
    blocks = [dict(block.named_parameters()) for block in trainer.network.blocks]
    for name, parameter in blocks[0].items():
        assert (parameter is blocks[2][name]) == parameter.requires_grad, name
        assert parameter is not blocks[1][name]
        if parameter.requires_grad:
            assert not torch.equal(parameter, blocks[1][name]), name
    in_blocks = sum(p.numel() for p in blocks[0].values() if p.requires_grad)
    assert trainer.count_conventional() - trainer.count_trainable() == 2 * in_blocks > 0
    plain = adapted(kind).eval()
    plain.load_state_dict(trainer.network.model.state_dict())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(trainer.network.model.eval()(ids).logits, plain(ids).logits)


def test_adapters_that_blocks_share_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"blocks 0 and 1 share 'self_attn.q_proj.vblora_vector_bank"):
        LayerTyingEnv(model=lambda: adapted("vb-lora"), batches=lambda rng: tokens(rng), **TRAIN)
