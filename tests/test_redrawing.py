"""Frozen layers that draw their initial values again train exactly as those that hold them."""

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tying_env import EnvConfig
from tying_env.env import LayerTyingEnv
from tying_env.primary.building import build_network
from tying_env.redrawing import InitialisationRecorder
from tying_env.seeding import torch_randomness_from, torch_stream
from tying_env.tied_blocks import TiedBlocks


@pytest.mark.parametrize("units", ["block", "sublayers"])
@pytest.mark.parametrize("model", ["gpt2", "llama", "bert"])
def test_redrawn_and_held_frozen_layers_train_with_the_same_bits(tiny: dict[str, Any], model: str, units: str) -> None:
    episodes, each = [], 1 if units == "block" else 2
    tiny = tiny | {"model": model, "units": units, "k": 1, "dropout": 0.0 if model == "llama" else 0.2}
    for checkpointed in (False, True):
        for frozen_weights in ("held", "redrawn"):
            choices = {"frozen_weights": frozen_weights, "checkpoint_blocks": checkpointed}
            env = LayerTyingEnv(**tiny | choices)
            env.reset(seed=3)
            frozen = env.trainer.train(2)
            steps = [env.step(np.array(action * each))[1] for action in ([0, 0, 2, 1], [0, 1, 2, 3])]
            weights = env.trainer.state_dict()["weights"]
            episodes.append((frozen, steps, {name: value.tolist() for name, value in weights.items()}))
    assert episodes[0] == episodes[1] == episodes[2] == episodes[3]


@pytest.mark.parametrize("units", ["block", "sublayers"])
def test_redrawn_layers_hold_neither_weights_nor_gradients_nor_state_until_they_lead(
    tiny: dict[str, Any], units: str
) -> None:
    env = LayerTyingEnv(**tiny | {"frozen_weights": "redrawn", "units": units})
    env.reset(seed=0)
    env.trainer.train(1)
    trained = env.trainer.count_trainable()  # layer 0 and what lies outside the blocks
    assert env.trainer.memory_in_training == (4 * trained, 4 * trained, 8 * trained)
    block = sum(p.numel() for p in env.trainer.network.blocks[0].parameters())
    assert env.trainer.count_conventional() == trained + 3 * block  # their shapes are known all the same
    env.step(np.array([0, 0, 2, 0] * (1 if units == "block" else 2)))
    held = env.trainer.memory()
    assert held.weights == 4 * env.trainer.count_trainable()
    assert all("forward" not in part.__dict__ for block in env.trainer.network.blocks for part in block.modules())


def test_the_state_of_a_frozen_start_that_redraws_can_be_saved_and_forked(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"frozen_weights": "redrawn"})
    env.reset(seed=1)
    twin = env.fork()
    action = np.array([0, 1, 1, 3])
    assert env.step(action)[1] == twin.step(action)[1]


@pytest.mark.parametrize("model", ["gpt2", "llama", "bert"])
def test_a_network_without_its_frozen_layers_has_the_weights_of_one_with_them(model: str) -> None:
    sizes, config = {"vocab_size": 11}, EnvConfig(model=model, n_layer=3, n_embd=8, n_head=2, seq_len=4)  # type: ignore[arg-type]
    held, redrawn = (
        build_network(
            dataclasses.replace(config, frozen_weights=how), sizes, torch.device("cpu"), torch_stream(0, "weights")
        )
        for how in ("held", "redrawn")
    )
    found = dict(redrawn.model.named_parameters())
    for name, parameter in held.model.named_parameters():
        other = found[name]
        assert other.is_meta == name.startswith(tuple(held.block_names[1:]))
        assert torch.equal(redrawn.recipes[other].draw() if other.is_meta else other, parameter)


def test_while_a_network_is_built_there_is_no_more_than_it_holds_in_the_end() -> None:
    config = EnvConfig(n_layer=9, n_embd=16, n_head=2, seq_len=4, frozen_weights="redrawn")
    with TensorBytes() as seen:
        network = build_network(config, {"vocab_size": 5}, torch.device("cpu"), torch_stream(0, "weights"))
    held = sum(4 * p.numel() for p in network.model.parameters() if not p.is_meta)
    largest = 4 * max(p.numel() for p in network.model.parameters())
    assert held <= seen.most <= held + largest
    every = sum(4 * p.numel() for p in network.model.parameters())
    assert held + largest < every / 3


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of the floating-point tensors in memory that came about inside of this context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result.is_meta and result.is_floating_point():
            storage = result.untyped_storage()
            if storage._cdata not in self._seen:
                self._seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result

    def _gone(self, key: int, n: int) -> None:
        self._seen.discard(key)
        self.now -= n


@pytest.mark.parametrize("how", ["normal_", "uniform_", "kaiming_normal_", "xavier_uniform_", "ones_"])
def test_a_recipe_gives_the_bits_of_a_tensor_in_memory_whatever_was_drawn_since(how: str) -> None:
    def make() -> nn.Linear:
        layer = nn.Linear(5, 7)  # its own drawing comes first
        getattr(nn.init, how)(layer.weight)
        return layer

    in_memory, on_meta = torch_stream(4, "weights"), torch_stream(4, "weights")
    with torch_randomness_from(in_memory):
        expected = make()
    with torch_randomness_from(on_meta), torch.device("meta"), InitialisationRecorder() as recorder:
        layer = make()
    assert torch.equal(in_memory.get_state(), on_meta.get_state())  # what is drawn next is equal, too
    before = torch.get_rng_state()
    recipes = recorder.recipes(dict(layer.named_parameters()))
    for name, parameter in expected.named_parameters():
        assert torch.equal(recipes[name].draw(), parameter)
    assert torch.equal(torch.get_rng_state(), before)


def copied(layer: nn.Linear) -> None:
    layer.weight.copy_(torch.ones(6, 6, device="meta"))


def filled_in_part(layer: nn.Linear) -> None:
    layer.weight[2] = 1.0


def drawn_elsewhere(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(torch.empty(6, 6, device="meta"))


def drawn_transposed(layer: nn.Linear) -> None:
    layer.weight.T.normal_()


def drawn_by_a_function(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(torch.randn(6, 6, device="meta"))


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        (copied, "the initial values of 'weight' cannot be drawn again"),
        (filled_in_part, "the initial values of 'weight' cannot be drawn again"),
        (drawn_elsewhere, "the initial values of 'weight' cannot be drawn again"),
        (drawn_transposed, "the initial values of 'weight' cannot be drawn again"),
        (drawn_by_a_function, "it draws initial values by aten.randn"),
    ],
)
def test_values_that_came_about_otherwise_are_refused(how: Callable[[nn.Linear], None], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):  # noqa: SIM117
        with torch.device("meta"), torch.no_grad(), InitialisationRecorder() as recorder:
            layer = nn.Linear(6, 6)
            how(layer)
            recorder.recipes(dict(layer.named_parameters()))


def test_blocks_without_recipes_keep_their_values() -> None:
    blocks = [nn.Linear(5, 7), nn.Linear(5, 7)]
    tied = TiedBlocks(blocks, recipes={nn.Parameter(torch.ones(1)): None})  # type: ignore[dict-item]
    assert not any(p.is_meta for i in range(2) for p in tied.weights(i).values())


def test_drawing_leaves_torchs_generator_to_others(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"frozen_weights": "redrawn"})
    env.reset(seed=0)
    recipes = list(env.trainer.network.recipes.values())
    before = torch.get_rng_state()
    assert all(recipe.draw().isfinite().all() for recipe in recipes)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failed_first_change_leaves_redrawn_layers_as_they_were(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"frozen_weights": "redrawn"})
    env.reset(seed=0)
    tied = env.trainer.tied
    stranger = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="lacks groups made by TiedBlocks"):
        tied.change([0, 1, 0, 3], stranger)
    assert tied.frozen
    reference = LayerTyingEnv(**tiny)
    reference.reset(seed=0)
    assert env.trainer.train(2) == reference.trainer.train(2)


@pytest.mark.parametrize("start", [{"init_from": "somewhere"}, {"delta_rank": 2}])
def test_redrawing_is_refused_for_a_start_that_is_more_than_random_matrices(start: dict[str, Any]) -> None:
    name, value = next(iter(start.items()))
    with pytest.raises(ValueError, match=rf"frozen_weights must be 'held'.*got 'redrawn' with {name}={value!r}"):
        EnvConfig(frozen_weights="redrawn", **start)


def test_redrawing_is_refused_in_parts_of_compiled_blocks() -> None:
    with pytest.raises(ValueError, match=r"frozen_weights must be 'held'.*compile_blocks=True and units='sublayers'"):
        EnvConfig(frozen_weights="redrawn", compile_blocks=True, units="sublayers")


def test_redrawing_is_refused_where_frozen_layers_continue_to_train(tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"frozen_weights must be 'held'.*got 'redrawn' with replication='copied'"):
        LayerTyingEnv(**tiny | {"frozen_weights": "redrawn", "replication": "copied"})


def test_redrawing_is_refused_where_initial_values_come_of_rejection() -> None:
    with pytest.raises(ValueError, match=r"frozen_weights must be 'held'.*got 'redrawn' with the model 'vit'"):
        EnvConfig(model="vit", dataset="digits", frozen_weights="redrawn")
