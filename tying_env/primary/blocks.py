"""Finds the transformer blocks in a network: the lists of modules that can be tied."""

from torch import nn

# Beside the largest list, those count that hold at least this share of its parameters: a decoder beside an encoder
# does, a short list of norms or heads does not.
_SHARE = 0.1


def block_lists(model: nn.Module) -> dict[str, int]:
    """Return the outermost lists of modules with parameters: path in dots -> number of modules, in order."""
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) > 0 and not inside and _size(module) > 0:
            found[path] = len(module)
    return found


def find_blocks(model: nn.Module) -> tuple[str, ...]:
    """Return where the blocks of a network are: one path, or several where it has an encoder and a decoder.

    Raises:
        ValueError: it has no list of blocks.
    """
    lists = block_lists(model)
    if not lists:
        raise ValueError(
            f"{type(model).__name__} has no nn.ModuleList of blocks to tie, which are found; what blocks= can name: "
            f"{_candidates(model)}"
        )
    sizes = {path: _size(model.get_submodule(path)) for path in lists}
    return tuple(path for path, size in sizes.items() if size >= _SHARE * max(sizes.values()))


def check_blocks(model: nn.Module, paths: tuple[str, ...]) -> None:
    """Check that there are blocks at these paths.

    Raises:
        ValueError: there is no list of modules at a path, and the message lists where there are some; or a list holds
            a module twice.
    """
    candidates = _candidates(model)
    if not paths:
        raise ValueError(f"blocks must name at least one list of modules, got none; candidates: {candidates}")
    for i, path in enumerate(paths):
        try:
            module = model.get_submodule(path) if path else None
        except AttributeError:
            module = None
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) == 0:
            what = "nothing" if module is None else f"a {type(module).__name__}"
            raise ValueError(
                f"blocks must name an nn.ModuleList or nn.Sequential in {type(model).__name__}; at {path!r} there is "
                f"{what}; candidates: {candidates}"
            )
        first: dict[int, int] = {}
        for place, block in enumerate(module):
            if first.setdefault(id(block), place) != place:
                raise ValueError(
                    f"the blocks at {path!r} must be modules of their own, which a tying makes share their weights; "
                    f"number {first[id(block)]} and number {place} are one and the same"
                )
        if any(path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in paths[:i]):
            raise ValueError(f"the blocks at {path!r} are in another list of {paths} already")


def _candidates(model: nn.Module) -> str:
    """Return where blocks could be: lists, and sequences of modules outside of them."""
    found = block_lists(model)
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{list_path}.") for list_path in found)
        if path and isinstance(module, nn.Sequential) and len(module) > 1 and not inside and _size(module) > 0:
            found[path] = len(module)
    return ", ".join(f"{path!r} ({count} modules)" for path, count in found.items()) or "none"


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
