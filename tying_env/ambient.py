"""Computing that does not depend on the modes of torch that the caller has switched."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def usual_modes() -> Iterator[None]:
    """Compute in torch's usual modes, whatever the caller's are, and leave those as they were. A decorator as well.

    The usual ones: gradients on, no inference mode, no autocast, float32 and the CPU for what is made without saying
    which. Under another default an environment would raise, or train in another precision than its settings name.
    """
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # a default device slows every call down: only where there is one
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
