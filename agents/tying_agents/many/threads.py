"""How many CPU threads something computes with, whether in a process of its own or in the caller's."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def computing_on(threads: int) -> Iterator[None]:
    """Let torch compute on so many CPU threads in this block, and on as many as before after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
