"""States as files: nested dictionaries are parted into tensors by path and the rest, ready for JSON, and joined."""

from typing import Any

from torch import Tensor

_TENSOR = "$tensor"


def part(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return the state with a reference in place of every tensor, and the tensors by their path: "trainer/dropout".

    Raises:
        ValueError: a key is no text, or holds a "/": the paths could not be told apart.
    """
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value
            return {_TENSOR: path}
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str) or "/" in key or key == _TENSOR:
                    raise ValueError(f"a state's keys must be texts without '/', got {key!r} under {path!r}")
            return {key: walk(entry, f"{path}/{key}" if path else key) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(entry, f"{path}/{i}" if path else str(i)) for i, entry in enumerate(value)]
        return value

    return walk(state, ""), tensors


def join(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """Put the tensors back where `part` took them from.

    Raises:
        ValueError: a tensor is missing, or one is left over.
    """
    used: set[str] = set()

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if _TENSOR in value:
                path = value[_TENSOR]
                if not isinstance(path, str) or path not in tensors:
                    raise ValueError(f"the tensor {path!r} is missing")
                used.add(path)
                return tensors[path]
            return {key: walk(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [walk(entry) for entry in value]
        return value

    state = walk(plain)
    if left_over := sorted(set(tensors) - used):
        raise ValueError(f"nothing refers to the tensor {left_over[0]!r}")
    return state
