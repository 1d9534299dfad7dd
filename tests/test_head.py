import pytest
import torch
from torch.nn import functional as F

from tying_env.primary.kernels.head import linear_cross_entropy


def problem(dtype: torch.dtype, n: int = 37, d: int = 8, v: int = 101) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(v, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(v, (n,), generator=generator)


@pytest.mark.parametrize("rows", [1, 7, 37, 1000, None])
def test_loss_and_gradients_are_those_of_the_plain_expression(rows: int | None) -> None:
    hidden, weight, targets = problem(torch.float64)
    loss = linear_cross_entropy(hidden, weight, targets, rows)
    expected = F.cross_entropy(F.linear(hidden, weight), targets)
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss * 3, [hidden, weight])
    theirs = torch.autograd.grad(expected * 3, [hidden, weight])
    torch.testing.assert_close(ours, theirs)


def test_autograds_numerical_check_passes() -> None:
    hidden, weight, targets = problem(torch.float64, n=5, d=3, v=7)
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets, 2), (hidden, weight))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precision_stays_near_float64(dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, targets = problem(dtype)
    loss = linear_cross_entropy(hidden, weight, targets, 10)
    assert loss.dtype == torch.float32
    loss.backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert weight.grad.dtype == dtype
    exact_hidden, exact_weight = (t.detach().double().requires_grad_() for t in (hidden, weight))
    exact = F.cross_entropy(F.linear(exact_hidden, exact_weight), targets)
    exact.backward()
    torch.testing.assert_close(loss.double(), exact, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(weight.grad.double(), exact_weight.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(hidden.grad.double(), exact_hidden.grad, rtol=tolerance, atol=tolerance)


def test_only_the_gradients_asked_for_are_made() -> None:
    hidden, weight, targets = problem(torch.float64)
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    assert hidden.grad is not None
    linear_cross_entropy(hidden.detach(), weight, targets).backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, targets).requires_grad


def test_logits_that_would_overflow_exp_do_no_harm() -> None:
    hidden = torch.full((2, 1), 1000.0)
    weight = torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0, 1]))
    torch.testing.assert_close(loss, torch.tensor(1000.0))


def test_logits_are_never_held_in_full() -> None:
    """The largest tensor made for 64 rows of 5,000 logits is one chunk, or a gradient of the weight."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return result

    hidden, weight, targets = problem(torch.float32, n=64, d=2, v=5000)
    with Largest() as largest:
        linear_cross_entropy(hidden, weight, targets, 4).backward()
    assert largest.numel == 4 * 5000
