"""The positive control: tasks whose best tying is known, in an environment with the spaces of the real one. No torch."""

from tying_env.synthetic.env import SyntheticTyingEnv
from tying_env.synthetic.tasks import KINDS, Kind, Task, make_task

__all__ = ["KINDS", "Kind", "SyntheticTyingEnv", "Task", "make_task"]
