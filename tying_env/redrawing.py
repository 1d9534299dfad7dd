"""Draws initial weights again from the generator states they came from, so that they need not be held.

At the paper's frozen start all layers but the first stay at their random initial values for k steps, and most of them
are then thrown away: the first tying leaves about H_L of L. Held, they would be the largest thing in memory. They are
fully given by a generator state and a few operations, 5 kB for each tensor, and a drawing takes a few per cent of the
time in which a layer computes with it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tying_env.slots import Slot, Weights, get, put

_RANDOM = ("normal_", "uniform_")
_CONSTANT = ("zero_", "fill_")


class Recipe(NamedTuple):
    """How the values of one tensor came about: in-place operations on it, after its first has overwritten all of it."""

    shape: torch.Size
    dtype: torch.dtype
    state: Tensor | None  # of the CPU's generator before the first operation; None if that draws nothing
    operations: tuple[tuple[Any, tuple[Any, ...], dict[str, Any]], ...]

    @torch.no_grad()
    def draw(self) -> Tensor:
        """Return the values once more, on the CPU; the global generator is left as it was."""
        values = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        # Not seeding's context: it keeps other threads out, and a GPU's backward pass comes here from another thread.
        with torch.random.fork_rng(devices=[]):
            if self.state is not None:
                torch.set_rng_state(self.state)
            for operation, arguments, options in self.operations:
                operation(values, *arguments, **options)
        return values


class InitialisationRecorder(TorchDispatchMode):
    """Inside this context, takes note of how tensors on the CPU are filled in place."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recipes: dict[int, Recipe] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = func._schema.name.removeprefix("aten::"), dict(kwargs or {})
        if name.endswith("_") and not name.startswith("_") and isinstance(args[0], Tensor):
            self._note(name, func, args, options)
        return func(*args, **options)

    def _note(self, name: str, func: Any, args: Any, options: dict[str, Any]) -> None:
        target, key = args[0], args[0].untyped_storage()._cdata
        call = (func, tuple(args[1:]), options)
        whole = target.numel() * target.element_size() == target.untyped_storage().nbytes()
        plain = not any(isinstance(value, (Tensor, torch.Generator)) for value in (*args[1:], *options.values()))
        if not (whole and plain and target.device.type == "cpu"):
            self._recipes.pop(key, None)
        elif name in _RANDOM or name in _CONSTANT:
            state = torch.get_rng_state() if name in _RANDOM else None
            self._recipes[key] = Recipe(target.shape, target.dtype, state, (call,))
        elif (before := self._recipes.get(key)) is not None:  # such as mul_: a distribution scaled
            self._recipes[key] = before._replace(operations=(*before.operations, call))

    def recipes(self, parameters: Iterable[nn.Parameter]) -> dict[nn.Parameter, Recipe]:
        """Return the recipes of those Parameters, in memory on the CPU, that can be drawn again bit for bit.

        Each is drawn once to make sure of it.
        """
        return {p: recipe for p, recipe in self.noted(parameters).items() if torch.equal(recipe.draw(), p)}

    def noted(self, parameters: Iterable[nn.Parameter]) -> dict[nn.Parameter, Recipe]:
        """Return what was noted of these Parameters, without a trial."""
        found = ((p, self._recipes.get(p.untyped_storage()._cdata)) for p in parameters)
        return {p: recipe for p, recipe in found if recipe is not None}


class ReleasedWeights:
    """Frozen blocks that do not hold their initial values: each draws them when it computes, and lets them go.

    Their Parameters are on the meta device, with shapes but without values. The forward pass of such a block is a
    checkpoint: in the backward pass it draws and computes once more, so that its activations are not held either.

    All values are there at two moments: when the network is built, beside them one tensor that is compared at a time
    (0.252 of what conventional training of the paper's network holds), and when a checkpoint or a fork is taken during
    the frozen start, beside the gradients and optimizer state of what trains (0.304).
    """

    def __init__(self) -> None:
        self.layers: dict[int, dict[str, Recipe]] = {}  # those that do not hold their values

    def release(
        self, layer: int, block: nn.Module, places: dict[str, Slot], recipes: Mapping[nn.Parameter, Recipe]
    ) -> None:
        """Let go of the values of a frozen block; it keeps them if one of its Parameters has no recipe."""
        weights = {name: get(slot) for name, slot in places.items()}
        if any(parameter not in recipes for parameter in weights.values()):
            return
        some = next(iter(weights.values()))
        device, dtype = some.device, some.dtype
        former = block.__dict__.get("forward")  # a checkpoint, perhaps: this forward pass is one itself
        compute = block.forward if former is None else former.__wrapped__
        compiled, block._compiled_call_impl = block._compiled_call_impl, None  # nothing to gain for so few steps

        def draw_and_compute(*args: Any, **kwargs: Any) -> Any:
            absent = {name: get(slot) for name, slot in places.items()}
            put(places, self.draw(layer, device, dtype))
            try:
                return compute(*args, **kwargs)
            finally:
                put(places, absent)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if layer in self.layers:
                if torch.is_grad_enabled():
                    return checkpoint(draw_and_compute, *args, use_reentrant=False, **kwargs)
                return draw_and_compute(*args, **kwargs)
            # The values were drawn for good, or the layer copies another by now: from here on it is an ordinary block.
            block._compiled_call_impl = compiled
            if former is None:
                del block.forward
            else:
                block.forward = former
            return block.forward(*args, **kwargs)

        absent = {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in weights.values()}
        self.layers[layer] = {name: recipes[p] for name, p in weights.items()}
        put(places, {name: absent[id(p)] for name, p in weights.items()})
        block.forward = forward

    def draw(self, layer: int, device: torch.device, dtype: torch.dtype) -> Weights:
        """Return new Parameters with the initial values of a layer."""
        recipes = self.layers[layer]
        created = {
            id(recipe): nn.Parameter(recipe.draw().to(device, dtype), requires_grad=False)
            for recipe in recipes.values()
        }
        return {name: created[id(recipe)] for name, recipe in recipes.items()}
