"""What a tying moves as one: a block, a part of a block, or any modules of a network.

A unit is a module. Where it is not one in the network but several, it is a bundle of them: a module that holds these
under the names that they have in what they share, and is itself in no network. So whatever ties modules ties units.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tying_env.kinds import ATTENTION, FEED_FORWARD

# Units of a user's own choice: the name of a kind -> of each unit of that kind the paths of its modules.
OwnUnits = Mapping[str, Sequence[tuple[str, ...]]]

# Words in the name of a part of a block that tell what it belongs to.
_WORDS = {
    ATTENTION: ("attn", "attention"),
    FEED_FORWARD: ("mlp", "ffn", "feed_forward", "feedforward", "fc1", "fc2", "moe", "intermediate"),
}
# Parts that their names do not tell, or tell wrongly: norms belong to what reads them, or to what they read.
_KNOWN = {
    **dict.fromkeys(("ln_1", "ln1", "norm1", "norm_1", "layernorm_before", "input_layernorm"), ATTENTION),
    **dict.fromkeys(("sa_layer_norm",), ATTENTION),
    **dict.fromkeys(("ln_2", "ln2", "norm2", "norm_2", "layernorm_after", "post_attention_layernorm"), FEED_FORWARD),
    **dict.fromkeys(("final_layer_norm", "output_layer_norm", "norm3", "post_feedforward_layernorm"), FEED_FORWARD),
    **dict.fromkeys(("output", "linear1", "linear2"), FEED_FORWARD),
}
# Norms that belong to attention where the feed-forward part has this other one.
_ATTENTIONS_IF = {"post_attention_layernorm": "post_feedforward_layernorm", "norm2": "norm3"}


def bundle(model: nn.Module, paths: Sequence[str]) -> tuple[str, nn.Module]:
    """Return modules of a network as one unit: the path of what they share, and the unit.

    Args:
        model: the network.
        paths: where the modules are, in dots, at least one; none is in another.
    """
    if len(paths) == 1:
        return paths[0], model.get_submodule(paths[0])
    words = [path.split(".") for path in paths]
    shared = 0
    while all(len(each) > shared + 1 and each[shared] == words[0][shared] for each in words):
        shared += 1
    root = nn.Module()
    for path, each in zip(paths, words, strict=True):
        place = root
        for name in each[shared:-1]:
            if name not in dict(place.named_children()):
                place.add_module(name, nn.Module())
            place = place.get_submodule(name)
        place.add_module(each[-1], model.get_submodule(path))
    return ".".join(words[0][:shared]), root


def check_units(model: nn.Module, units: Any) -> OwnUnits:
    """Return the units that a user names, by kind, after checking that there is a module at each path, in one unit.

    Raises:
        TypeError: they are not paths by kind.
        ValueError: there are none, no module is at a path, or one is in two units; the message names it.
    """
    if not isinstance(units, Mapping) or not all(isinstance(kind, str) and kind for kind in units):
        raise TypeError(f"units must map the name of each kind to the paths of its units, got {units!r:.200}")
    named: dict[str, tuple[tuple[str, ...], ...]] = {}
    for kind, given in units.items():
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            raise TypeError(f"the units of the kind {kind!r} must be a list of paths, at least one, got {given!r:.200}")
        for unit in given:
            paths = [unit] if isinstance(unit, str) else unit
            if not isinstance(paths, Sequence) or not all(isinstance(path, str) for path in paths):
                raise TypeError(f"a unit of the kind {kind!r} must be a path or a list of paths, got {unit!r:.200}")
        named[kind] = tuple((unit,) if isinstance(unit, str) else tuple(unit) for unit in given)
    if not named:
        raise ValueError("units must name at least one kind, got none")
    taken: dict[int, tuple[int, str]] = {}
    for place in enumerate(path for given in named.values() for paths in given for path in paths):
        path = place[1]
        try:
            module = model.get_submodule(path)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"units must name modules of {type(model).__name__}; at {path!r} there is none") from error
        for part in module.modules():
            other = taken.setdefault(id(part), place)
            if other != place:
                raise ValueError(f"units must have no modules in common, and those at {other[1]!r} and {path!r} have")
    if empty := next((kind for kind, given in named.items() for paths in given if not paths), None):
        raise ValueError(f"a unit of the kind {empty!r} names no modules")
    return named


def sublayers(block: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the paths in a block of what belongs to its attention, and to its feed-forward part, with their norms.

    Attention over another sequence (of a decoder behind an encoder) belongs to attention.

    Raises:
        ValueError: it is not known where something in it belongs, or it has not both; the message names it.
    """
    found: dict[str, list[str]] = {ATTENTION: [], FEED_FORWARD: []}
    named = type(block).__name__
    if loose := [name for name, _ in block.named_parameters(recurse=False)]:
        raise ValueError(f"{loose[0]!r} of a {named} is in neither attention nor feed-forward part: {_HINT}")
    children = _children(block)
    for path, child in children.items():
        if any(True for _ in child.parameters()):
            part = ATTENTION if _ATTENTIONS_IF.get(path) in children else _part_of(path, child)
            if part is None:
                raise ValueError(
                    f"it is not known whether {path!r} of a {named} belongs to attention or feed-forward: {_HINT}"
                )
            found[part].append(path)
    if lacking := [part for part, paths in found.items() if not paths]:
        parts = ", ".join(children)
        raise ValueError(f"a {named} has no {lacking[0]} part that is known by its name ({parts}): {_HINT}")
    return {part: tuple(paths) for part, paths in found.items()}


_HINT = "name the modules that are tied as one, OwnNetwork(..., units={...})"


def _children(block: nn.Module) -> dict[str, nn.Module]:
    """Return the modules in a block by path; those of a list in it (as T5 has) one by one."""
    found: dict[str, nn.Module] = {}
    for name, child in block.named_children():
        if isinstance(child, nn.ModuleList):
            found |= {f"{name}.{number}": part for number, part in child.named_children()}
        else:
            found[name] = child
    return found


def _part_of(path: str, module: nn.Module) -> str | None:
    if path in _KNOWN:
        return _KNOWN[path]
    # Of a list the numbers say nothing, its classes do.
    name = (type(module).__name__ if path.rpartition(".")[2].isdecimal() else path).lower()
    parts = [part for part, words in _WORDS.items() if any(word in name for word in words)]
    if not parts and path.rpartition(".")[2].isdecimal() and name.endswith("ff"):  # T5LayerFF
        return FEED_FORWARD
    return parts[0] if len(parts) == 1 else None
