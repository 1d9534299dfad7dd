"""Many small primary networks at once: N trainings with N tyings in one process as one batched computation."""

from tying_env.vector.env import VectorTyingEnv

__all__ = ["VectorTyingEnv"]
