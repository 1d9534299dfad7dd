"""What the network of an environment holds at a decision, and how it trains: part of every record."""

from typing import Any


def held(env: Any) -> dict[str, Any]:
    """Return what the network holds, and how it trains; empty of an environment that trains none.

    That is: learning rate of the last training step, mean norm of the gradients since the tying was changed; storages
    of its layers, bytes by kind, bytes that processes exchange.

    Args:
        env: without its wrappers.
    """
    if (trainer := getattr(env, "trainer", None)) is None:
        return {}
    return {
        "learning_rate": trainer.learning_rate,
        "gradient_norm": trainer.gradient_norm,
        "storages": len(trainer.tied.owners()),
        **{f"{kind}_bytes": n for kind, n in trainer.memory_in_training._asdict().items()},
        # Of several processes: the gradients that each gives into the average in a training step.
        **({"exchanged_bytes": sent} if (sent := trainer.bytes_exchanged) else {}),
        # Of controllers that look ahead: training steps in trials so far.
        **({"trial_steps": tried} if (tried := env.trial_steps) else {}),
    }
