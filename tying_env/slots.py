"""Where the Parameters of a block hang, so that others can be put there."""

from torch import nn

# The weights of one block: name inside the block -> Parameter.
Weights = dict[str, nn.Parameter]


class Slots:
    """The places in a block where its Parameters hang: submodule and attribute, by name."""

    def __init__(self, block: nn.Module) -> None:
        self._places = {
            name: (block.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
            for name, _ in block.named_parameters(remove_duplicate=False)
        }

    def weights(self) -> Weights:
        """Return the Parameters that hang there now, by name."""
        weights = {}
        for name, (module, attribute) in self._places.items():
            parameter = getattr(module, attribute)
            assert isinstance(parameter, nn.Parameter)
            weights[name] = parameter
        return weights

    def put(self, weights: Weights) -> None:
        """Set references, nothing else: no memory is taken here, no number computed."""
        for name, (module, attribute) in self._places.items():
            if getattr(module, attribute) is not weights[name]:
                setattr(module, attribute, weights[name])
