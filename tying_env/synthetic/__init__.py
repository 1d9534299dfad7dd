"""The positive control: tasks whose best tying is known, with the spaces of the real environment. No torch."""

from tying_env.synthetic.env import SyntheticTyingEnv
from tying_env.synthetic.tasks import KINDS, Kind, SyntheticTask, make_task

__all__ = ["KINDS", "Kind", "SyntheticTask", "SyntheticTyingEnv", "make_task"]
