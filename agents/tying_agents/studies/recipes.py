"""Settings that several studies have in common."""

# Rates of the network of `quick`. Tyings that change are best at 1e-3 (docs/results/frozen_start.md), fixed ones at up
# to 8e-3; two tuning seeds once chose 1.6e-2, and one of ten broke there (docs/results/first_layer.md).
RATES = ("--learning-rates", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3", "1.6e-2")
# An arm looks at three of these or a few more (docs/tuning.md): wide, so that no best rate lies at an edge.
CLIMB = ("--rate-search", "climb")
# Of these the climb begins with 1e-3, 2e-3 and 4e-3, an octave lower: tyings that change break where WIDE begins.
LOWER = (*CLIMB, "--learning-rates", "2.5e-4", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3", "1.6e-2")
WIDE = (*CLIMB, "--learning-rates", "2.5e-4", "5e-4", "1e-3", "2e-3", "4e-3", "8e-3", "1.6e-2", "3.2e-2")
STEADY = ("--tuning-seeds", "3", "--seeds", "10")
STEADIER = (*WIDE, *STEADY)


def quick(total_steps: int = 384, warmup_steps: int = 96, k: int = 4, n_head: int = 2) -> tuple[str, ...]:
    """Return the options of a network that trains in a fraction of the preset's time and reaches its perplexity.

    It is for studies of many arms: the recipe of the tying table (docs/tuning.md) with twelve layers.
    """
    every = max(48, total_steps // 32)  # a validation takes as long as ten training steps
    return (
        *("--n-embd", "32", "--n-head", str(n_head), "--seq-len", "64", "--batch-size", "8", "--dropout", "0"),
        *("--beta2", "0.95", "--total-steps", str(total_steps), "--warmup-steps", str(warmup_steps), "--k", str(k)),
        *("--validate-every", str(every), "--test-windows", "512"),
    )
