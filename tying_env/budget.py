"""What a training run may cost: its own training steps, and those of the trials made for it. No torch."""

from dataclasses import dataclass


class BudgetSpent(ValueError):
    """A trial was to train for more steps than the run has left for trials."""


@dataclass
class Budget:
    """Counts the training steps of a run and of its trials, which share one: nobody looks ahead without paying.

    Attributes:
        total: training steps in all.
        own: done by the run itself.
        trials: done by its trials.
        reserved: kept for the run's next decision, which a trial cannot take from it.
        asked: whether anybody has asked what is left for trials, or tried one: in a longer run the answer is another.
    """

    total: int
    own: int = 0
    trials: int = 0
    reserved: int = 0
    asked: bool = False

    @property
    def spent(self) -> int:
        """Training steps done by the run and its trials."""
        return self.own + self.trials

    def ask(self) -> int:
        """Return the training steps that trials can still take, and note that somebody wanted to know."""
        self.asked = True
        return max(self.total - self.spent - self.reserved, 0)

    def check(self, steps: int) -> None:
        """Check that trials can take so many training steps.

        Raises:
            BudgetSpent: they cannot.
        """
        if steps > (left := self.ask()):
            raise BudgetSpent(
                f"a trial of {steps} training steps is more than is left for trials, {left}: of "
                f"{self.total} the run has done {self.own} itself and {self.trials} in trials, and keeps "
                f"{self.reserved} for its next decision"
            )

    def pay(self, steps: int) -> None:
        """Take so many training steps for trials.

        Raises:
            BudgetSpent: that many are not left for them.
        """
        self.check(steps)
        self.trials += steps
