"""What a file has to hold of a tied network: every weight once, and the state that is no weight."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from tying_env.primary.models import PrimaryNetwork
from tying_env.slots import TiedParameters, slots
from tying_env.tied_blocks import TiedBlocks

Shape = tuple[int, ...]


def owned_parameters(network: PrimaryNetwork, tied: TiedBlocks) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every weight of a tied network once under the name of the layer that owns it.

    Frozen layers that draw their initial values again hold them from here on.
    """
    tied.hold()
    owners = set(tied.owners())
    owned = {id(p) for i in owners for p in tied.weights(i).values()}
    # Not by name: a block may be registered in a second place, whose name comes first.
    borrowed = {id(p) for i in range(tied.n_units) if i not in owners for p in tied.weights(i).values()} - owned
    for name, parameter in network.model.named_parameters():
        if id(parameter) not in borrowed:
            yield name, parameter


def owned_tensors(network: PrimaryNetwork, tied: TiedBlocks) -> dict[str, Tensor]:
    """Return by name the weights of `owned_parameters` and the persistent buffers, live ones but detached."""
    weights: dict[str, Tensor] = {name: p.detach() for name, p in owned_parameters(network, tied)}
    return weights | persistent_buffers(network.model)


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are part of a model's state, such as BatchNorm's running means, by name.

    They are never tied: each layer has its own. Buffers that a module registers as not persistent are constants.
    """
    state = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name in state}


def constants(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are no part of a model's state, by name.

    Most follow from the model's settings alone. Some adapters keep there what they made of the weights they began with,
    which no settings tell: a run makes it again with its seed, and an export brings it along.
    """
    state = model.state_dict()
    return {name: b for name, b in model.named_buffers() if name not in state}


def check_owned(
    network: PrimaryNetwork, sources: Sequence[int], found: Mapping[str, Shape], only: TiedParameters
) -> None:
    """Check that these are the names and shapes of exactly the weights and buffers that a tied network holds.

    Args:
        network: the network, or its skeleton.
        sources: for each layer the lowest one on whose storage it computes, (L,).
        found: shapes by name.
        only: what of a block is tied.

    Raises:
        ValueError: one is missing, unexpected or of another shape; the message names it.
    """
    owners = set(sources)
    borrowed = {
        f"{layer_name}.{name}" if layer_name else name
        for i, (layer_name, block) in enumerate(zip(network.unit_names, network.units, strict=True))
        if i not in owners
        for name in slots(block, only)
    }
    kept = {**dict(network.model.named_parameters()), **persistent_buffers(network.model)}
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items() if name not in borrowed}
    for name in [*shapes, *found]:
        if name not in found:
            raise ValueError(f"its settings ask for {name!r} of shape {shapes[name]}, it lacks the tensor")
        if name not in shapes:
            raise ValueError(f"it has an unexpected tensor {name!r}")
        if found[name] != shapes[name]:
            raise ValueError(f"its settings ask for {name!r} of shape {shapes[name]}, the tensor has {found[name]}")
