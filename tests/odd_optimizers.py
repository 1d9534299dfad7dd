"""Optimizers that are not like torch's: what they remember is elsewhere, or they draw."""

from typing import Any

import torch


class InItsGroups(torch.optim.SGD):
    """Keeps a number in its groups, as Prodigy does."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            group["d"] = group.get("d", 0) + 1


class AtOnce(torch.optim.SGD):
    """Makes state when it is made, and does not know Parameters that join later."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups)
        for group in self.param_groups:
            self.state |= {p: {"sum": torch.zeros_like(p)} for p in group["params"]}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"].add_(p.grad)


class Slowing(torch.optim.SGD):
    """Counts its steps where nobody saves them."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups)
        self.steps = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.mul_(self.steps**-0.5)
        super().step(closure)


class LookingAhead(Slowing):
    """Does something else at every sixth step, as Lookahead does."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        torch.optim.SGD.step(self, closure)
        self.steps += 1
        if self.steps % 6 == 0:
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.mul_(0.5)


class Langevin(torch.optim.SGD):
    """Draws noise from the generator that all code shares (SGLD)."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.add_(torch.randn_like(p), alpha=0.01)
        super().step(closure)


class WithNumbers(torch.optim.SGD):
    """Keeps a number in Python for each Parameter."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["count"] = self.state[p].get("count", 0) + 1
