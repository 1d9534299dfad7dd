"""What a caller may have switched in torch."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch


@contextlib.contextmanager
def switched(switch: Callable[[Any], None], on: Any, off: Any) -> Iterator[None]:
    switch(on)
    try:
        yield
    finally:
        switch(off)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: switched(torch.set_default_device, "meta", None),
    "deterministic algorithms": lambda: switched(torch.use_deterministic_algorithms, True, False),
}
