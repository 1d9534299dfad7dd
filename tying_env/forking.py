"""A forked process computes on one thread.

Of the threads that torch's OpenMP has begun, a fork has only the one that forked, and waits for the others for ever: an
`AsyncVectorEnv` made after some training stood still. (Workers of torch's DataLoader compute on one thread, too.)
"""

import os

import torch


def _compute_on_one_thread() -> None:
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(after_in_child=_compute_on_one_thread)
