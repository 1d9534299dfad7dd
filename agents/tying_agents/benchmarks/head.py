"""The head, which never holds all logits, against the one that everyone writes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tying_agents.benchmarks.measurements import SEED, benchmark_env
from tying_agents.benchmarks.settings import BenchmarkSizes
from tying_agents.benchmarks.turns import Contender, TableRow, milliseconds, per_second, take_turns, to_rows
from tying_env.primary.kernels.head import linear_cross_entropy
from tying_env.primary.tasks import CausalLM, Task
from tying_env.seeding import torch_stream


def plain_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the loss as everyone writes it."""
    return F.cross_entropy(F.linear(hidden, weight), targets)


class PlainLM(CausalLM):
    """`CausalLM` with the plain head."""

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy of windows (B, T + 1)."""
        hidden = model.get_submodule("transformer")(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
        return plain_cross_entropy(hidden.flatten(0, 1), model.get_parameter("lm_head.weight"), batch[:, 1:].flatten())


def measure_head(work: BenchmarkSizes) -> list[TableRow]:
    """The chunked head against the plain one: in a training step of the wide network, and alone."""
    _, env = benchmark_env(work, work.independent, n_embd=work.wide_n_embd)
    trainer, device = env.trainer, env.device

    def train(task: Task) -> None:
        trainer.gradients.task = task
        trainer.train(1)

    plain, chunked = "training step, plain head", "training step, chunked head"
    arms = [Contender(plain, lambda: train(PlainLM())), Contender(chunked, lambda: train(CausalLM()))]
    speeds = per_second(take_turns(arms, work.repeats, device, work.clock), work.tokens)

    weight = trainer.network.model.get_parameter("lm_head.weight").detach().requires_grad_()  # (V, D)
    generator, n = torch_stream(SEED, "head alone", device), work.tokens
    hidden = torch.randn(n, work.wide_n_embd, generator=generator, device=device, requires_grad=True)  # (N, D)
    targets = torch.randint(len(weight), (n,), generator=generator, device=device)  # (N,)
    logits = torch.empty(n, len(weight), device=device)  # (N, V)
    grad_hidden, grad_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def learn(head: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        hidden.grad = weight.grad = None
        head(hidden, weight, targets).backward()

    @torch.no_grad()
    def multiply() -> None:
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(logits, weight, out=grad_hidden)
        torch.mm(logits.T, hidden, out=grad_weight)

    arms = [
        Contender("its three products alone", multiply),
        Contender("plain head alone", lambda: learn(plain_cross_entropy)),
        Contender("chunked head alone", lambda: learn(linear_cross_entropy)),
    ]
    alone = milliseconds(take_turns(arms, work.repeats, device, work.clock))
    return [
        *to_rows(speeds, "tokens/s", plain, {chunked: "at least 1"}),
        *to_rows(alone, "ms", arms[0].name),
    ]
