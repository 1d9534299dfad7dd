"""Draws initial weights again from the generator states they came from, so that they need not be held.

At the paper's frozen start all layers but the first stay at their random initial values for k steps, and most of them
are then thrown away: the first tying leaves about H_L of L. Held, they would be the largest thing in memory. They are
fully given by a generator state and a few operations, 5 kB for each tensor. Drawing takes time, on the CPU wherever the
network is: docs/performance.md says how much.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tying_env.own_forward import OwnForward
from tying_env.slots import Slot, Weights, get, put

_RANDOM = ("normal_", "uniform_")
_CONSTANT = ("zero_", "fill_")
_FILLED = {"zeros": 0.0, "ones": 1.0}
_REFUSED = "frozen_weights must be 'held' for this network, got 'redrawn'"


class Recipe(NamedTuple):
    """How the values of a tensor came about: operations, of which the first overwrites all of it."""

    shape: torch.Size
    dtype: torch.dtype
    state: Tensor | None  # of the CPU's generator before the first operation; None if that draws nothing
    operations: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...]  # names in torch.ops.aten

    @torch.no_grad()
    def draw(self, device: str = "cpu") -> Tensor:
        """Return the values once more, on the CPU (or, without values, on the meta device)."""
        values = torch.empty(self.shape, dtype=self.dtype, device=device)
        generator = torch.Generator()
        if self.state is not None:
            generator.set_state(self.state)
        for name, arguments, options in self.operations:
            drawn = {"generator": generator} if name in _RANDOM and device == "cpu" else {}
            values = getattr(torch.ops.aten, name)(values, *arguments, **options | drawn)
        return values


class InitialisationRecorder(TorchDispatchMode):
    """Inside this context, takes note of how tensors on the meta device would be filled.

    Whatever draws random values draws as many as for a tensor in memory, one tensor at a time, and lets them go: the
    generator moves on as if there were one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recipes: dict[int | None, Recipe | None] = {}
        self._storages: list[torch.UntypedStorage] = []  # so that no two have the same address, one after the other

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        result = func(*args, **options)
        if isinstance(result, Tensor) and result.is_meta:
            self._note(func, args, options, result)
        return result

    def _note(self, func: Any, args: Any, options: dict[str, Any], result: Tensor) -> None:
        name, key = func._schema.name.removeprefix("aten::"), result.untyped_storage()._cdata
        source = args[0].untyped_storage()._cdata if args and isinstance(args[0], Tensor) else None
        if source == key and not name.endswith("_"):
            return  # a view, no new values
        state = torch.get_rng_state() if name in _RANDOM else None
        if state is not None:
            func(torch.empty(result.shape, dtype=result.dtype, device="cpu"), *args[1:], **options)
        elif torch.Tag.nondeterministic_seeded in func.tags:
            raise ValueError(f"{_REFUSED}: it draws initial values by {func}")
        strange = (Tensor, torch.Generator, torch.device)
        plain = not any(isinstance(value, strange) for value in (*args[1:], *options.values()))
        full = result.numel() * result.element_size() == result.untyped_storage().nbytes()
        whole = full and result.is_contiguous()  # a matrix that is filled transposed gets its values in another order
        call, recipe = (name, tuple(args[1:]), options), None
        if name in _FILLED:
            call = ("fill_", (_FILLED[name],), {})
            recipe = Recipe(result.shape, result.dtype, None, (call,))
        elif plain and whole and (name in _RANDOM or name in _CONSTANT):
            recipe = Recipe(result.shape, result.dtype, state, (call,))
        elif plain and whole and (before := self._recipes.get(source)) is not None:  # such as mul_: scaled
            recipe = before._replace(operations=(*before.operations, call))
        self._storages.append(result.untyped_storage())
        self._recipes[key] = recipe

    def recipes(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Recipe]:
        """Return how to draw each of these Parameters, by name.

        Raises:
            ValueError: the values of one came about otherwise.
        """
        found = {}
        for name, parameter in parameters.items():
            recipe = self._recipes.get(parameter.untyped_storage()._cdata)
            if recipe is None or recipe.draw("meta").shape != parameter.shape:
                raise ValueError(f"{_REFUSED}: the initial values of {name!r} cannot be drawn again")
            found[name] = recipe
        return found


class ReleasedWeights:
    """Frozen blocks that do not hold their initial values: each draws them when it computes, and lets them go.

    Their Parameters are on the meta device, with shapes but without values. The forward pass of such a block is a
    checkpoint: in the backward pass it draws and computes once more, so that its activations are not held either.

    All values are there when a checkpoint or a fork is taken during the frozen start, beside the gradients and
    optimizer state of what trains (0.304 of what conventional training of the paper's network holds).
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self.layers: dict[int, dict[str, Recipe]] = {}  # those that do not hold their values

    def release(
        self, layer: int, block: nn.Module, places: dict[str, Slot], recipes: Mapping[nn.Parameter, Recipe]
    ) -> None:
        """Let a frozen block compute without values of its own; it keeps them if a Parameter has no recipe."""
        weights = {name: get(slot) for name, slot in places.items()}
        if any(parameter not in recipes for parameter in weights.values()):
            return
        absent = {id(p): nn.Parameter(p.detach().to("meta"), requires_grad=False) for p in weights.values()}
        self.layers[layer] = {name: recipes[p] for name, p in weights.items()}
        put(places, {name: absent[id(p)] for name, p in weights.items()})
        for computing in _computing(block):
            parts = set(map(id, computing.modules()))
            if own := {name: slot for name, slot in places.items() if id(slot[0]) in parts}:
                computing.forward = _DrawnForward(self, layer, computing, own)

    def draw(self, layer: int, names: Collection[str] | None = None) -> Weights:
        """Return new Parameters with the initial values of a layer: those of these names, or all."""
        recipes = {name: each for name, each in self.layers[layer].items() if names is None or name in names}
        created = {
            id(recipe): nn.Parameter(recipe.draw().to(self._device, self._dtype), requires_grad=False)
            for recipe in recipes.values()
        }
        return {name: created[id(recipe)] for name, recipe in recipes.items()}


def _computing(unit: nn.Module) -> Iterator[nn.Module]:
    """Yield what computes in a unit: itself, or the modules that it bundles, whose own forward passes are called."""
    if type(unit) is not nn.Module:
        yield unit
        return
    for part in unit.children():
        yield from _computing(part)


class _DrawnForward(OwnForward):
    """The forward pass of a frozen block, or of a part of one, which draws its weights.

    It is a checkpoint itself: one that the block had is for when it is an ordinary block.
    """

    def __init__(self, released: ReleasedWeights, layer: int, block: nn.Module, places: dict[str, Slot]) -> None:
        super().__init__(block)
        self._released, self._layer = released, layer
        paths = {id(module): path for path, module in block.named_modules()}
        self._places = {name: (paths[id(module)], attribute) for name, (module, attribute) in places.items()}
        # Compiling would gain nothing for so few steps.
        self._compiled, block._compiled_call_impl = block._compiled_call_impl, None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._layer in self._released.layers:
            if torch.is_grad_enabled():
                return checkpoint(self._draw_and_compute, *args, use_reentrant=False, **kwargs)
            return self._draw_and_compute(*args, **kwargs)
        # The values were drawn for good, or the layer copies another by now: from here on it is an ordinary block.
        block = self.block
        block._compiled_call_impl = self._compiled
        if self._former is None:
            del block.forward
        else:
            block.forward = self._former
        return block.forward(*args, **kwargs)

    def _draw_and_compute(self, *args: Any, **kwargs: Any) -> Any:
        block = self.block
        places = {name: (block.get_submodule(path), attribute) for name, (path, attribute) in self._places.items()}
        absent = {name: get(slot) for name, slot in places.items()}
        put(places, self._released.draw(self._layer, places))
        try:
            return type(block).forward(block, *args, **kwargs)
        finally:
            put(places, absent)
