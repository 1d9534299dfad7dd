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
        raise ValueError(f"{type(model).__name__} has no nn.ModuleList of blocks to tie")
    sizes = {path: _size(model.get_submodule(path)) for path in lists}
    return tuple(path for path, size in sizes.items() if size >= _SHARE * max(sizes.values()))


def check_blocks(model: nn.Module, paths: tuple[str, ...]) -> None:
    """Check that there are blocks at these paths.

    Raises:
        ValueError: there is no list of modules at a path; the message lists where there are some.
    """
    lists = block_lists(model)
    candidates = ", ".join(f"{path!r} ({count} modules)" for path, count in lists.items()) or "none"
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
                f"blocks must name an nn.ModuleList in {type(model).__name__}; at {path!r} there is {what}; "
                f"candidates: {candidates}"
            )
        if any(path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in paths[:i]):
            raise ValueError(f"the blocks at {path!r} are in another list of {paths} already")


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
