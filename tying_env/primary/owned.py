"""What a file has to hold of a tied network: every weight once, and the state that is no weight."""

from collections.abc import Iterator

from torch import Tensor, nn

from tying_env.primary.models import PrimaryNetwork
from tying_env.tied_blocks import TiedBlocks


def owned_parameters(network: PrimaryNetwork, tied: TiedBlocks) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every weight of a tied network once under the name of the layer that owns it.

    Frozen layers that draw their initial values again hold them from here on.
    """
    tied.hold()
    owners, names = set(tied.owners()), network.block_names
    borrowed = {f"{names[i]}.{name}" for i in range(tied.n_layer) if i not in owners for name in tied.weights(i)}
    for name, parameter in network.model.named_parameters():
        if name not in borrowed:
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
