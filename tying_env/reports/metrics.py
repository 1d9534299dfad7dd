"""What arms are compared by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A result of a run that arms are compared by.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        unit: of its values.
        network: the network it was measured on, "best" or "final", if it is a test result; "first" for what the first
            decision came to, which with `reward_timing="after_tying"` is measured right after the tying; None for
            validation.
        field: where that network's result, or the first decision's record, has it.
        digits: to show behind the point.
        higher: whether higher is better.
    """

    key: str
    name: str
    unit: str
    network: str | None = None
    field: str = "perplexity"
    digits: int = 2
    higher: bool = False


METRICS_BY_KEY = {
    metric.key: metric
    for metric in (
        Metric("test-perplexity", "test perplexity of the best network", "per token", "best"),
        Metric("final-test-perplexity", "test perplexity of the final network", "per token", "final"),
        Metric("bits-per-byte", "test bits per byte of the best network", "bits/byte", "best", "bits_per_byte", 3),
        Metric("test-accuracy", "test accuracy of the best network", "share of images", "best", "accuracy", 3, True),
        Metric("test-cross-entropy", "test cross-entropy of the best network", "nats", "best", "mean_loss", 3),
        Metric("validation-perplexity", "best validation perplexity", "per token"),
        Metric("first-perplexity", "perplexity of the first decision", "per token", "first"),
    )
}
