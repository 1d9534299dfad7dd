"""Matrix products in float32 on CPUs that torch's own do not use to the full.

torch multiplies float32 matrices on x86 with Intel's MKL, which takes its AVX2 code on other makers' processors even
if they have AVX-512. oneDNN, which torch brings along, does not look at the maker: on an AMD EPYC of 2024 its products
take half the time. So where a processor is AMD's with AVX-512, linear layers multiply through oneDNN, in the same
precision.

torch's own switch turns it off: `with torch.backends.mkldnn.flags(enabled=False)`. What it gains is in
docs/performance.md.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Below as many multiplications the call costs more than it gains: about 15 microseconds against 5.
_SMALLEST = 2**22


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a model multiply through oneDNN, where that is faster; their Parameters stay theirs.

    Only layers that compute as their class does are changed: `nn.Linear`, and transformers' `Conv1D`. They get a class
    of their own, not a `forward` each: torch.compile would take every one of those for another function.
    """
    if _MKL_LEAVES_AVX512:
        from transformers.pytorch_utils import Conv1D

        from tying_env.primary.kernels.for_transformers import OneDNNConv1D

        classes: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: _OneDNNLinear, Conv1D: OneDNNConv1D}
        for module in model.modules():
            module.__class__ = classes.get(type(module), type(module))


def faster(inputs: Tensor, weight: Tensor, outputs: int) -> bool:
    """Tell whether oneDNN is the faster one to multiply (..., K) inputs into (..., `outputs`)."""
    return (
        inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == weight.device.type == "cpu"
        and inputs.numel() * outputs >= _SMALLEST
        and _MKL_LEAVES_AVX512
        and (torch.compiler.is_compiling() or _is_plain())
        and not torch.is_autocast_enabled("cpu")
    )


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return left @ right.T + bias by oneDNN, (N, M), without gradients.

    Args:
        left: (N, K), float32, on the CPU; it may be transposed, but no columns of a wider one: far slower.
        right: (M, K), as `left`.
        bias: (M,).
    """
    if torch.compiler.is_compiling():
        opaque: Tensor = _opaque_product(left, right, bias)
        return opaque
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


@torch.library.custom_op("tying_env::product", mutates_args=())
def _opaque_product(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """Do as `product`, unseen by torch.compile, whose own oneDNN products take constant weights only."""
    return product(left, right, bias)


@_opaque_product.register_fake
def _(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    return left.new_empty(len(left), len(right))


def _mkl_leaves_avx512() -> bool:
    """Tell whether this is a processor with AVX-512 that MKL takes for one without."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    about = Path("/proc/cpuinfo")
    return about.exists() and "AuthenticAMD" in about.read_text(encoding="utf-8", errors="replace")


_MKL_LEAVES_AVX512 = _mkl_leaves_avx512()


def onednn_is_chosen() -> bool:
    """Tell whether networks that are built here now multiply through oneDNN."""
    return _MKL_LEAVES_AVX512 and bool(torch.backends.mkldnn.enabled)


@contextlib.contextmanager
def choosing_onednn(chosen: bool) -> Iterator[None]:
    """Build and run networks in this block as on a processor where oneDNN is faster, or as on one where it is not."""
    global _MKL_LEAVES_AVX512
    before, _MKL_LEAVES_AVX512 = _MKL_LEAVES_AVX512, chosen
    try:
        yield
    finally:
        _MKL_LEAVES_AVX512 = before


def _is_plain() -> bool:
    """Tell whether oneDNN is switched on, and no function is transformed (`torch.func`), which `_Linear` is not for."""
    return bool(torch.backends.mkldnn.enabled) and not torch._C._are_functorch_transforms_active()


class _OneDNNLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        """Compute (..., K) to (..., M)."""
        if not faster(input, self.weight, self.out_features):
            return super().forward(input)
        return linear(input, self.weight, self.bias, True)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, rows_are_outputs: bool) -> Tensor:
    """Return x @ weight.T + bias for a weight (M, K), x @ weight + bias for one of (K, M), of x (..., K), by oneDNN."""
    flat: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias, rows_are_outputs)  # type: ignore[no-untyped-call]
    return flat.view(*x.shape[:-1], flat.shape[-1])


class _Linear(torch.autograd.Function):
    """x @ weight.T + bias for a weight (M, K), x @ weight + bias for one of (K, M)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows_are_outputs: bool) -> Tensor:
        # Only what the backward pass reads, as torch's own: a frozen layer does not keep its inputs.
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        ctx.rows_are_outputs = rows_are_outputs
        return product(x, weight if rows_are_outputs else weight.T, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        # Who differentiates the gradient once more gets torch's products, which autograd knows.
        multiply = _torch_product if torch.is_grad_enabled() else product
        grad = grad.contiguous()
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = multiply(grad, weight.T if ctx.rows_are_outputs else weight)
        if ctx.needs_input_grad[1]:
            grad_weight = multiply(grad.T, x.T) if ctx.rows_are_outputs else multiply(x.T, grad.T)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        return grad_x, grad_weight, grad_bias, None


def _torch_product(left: Tensor, right: Tensor) -> Tensor:
    return left @ right.T
