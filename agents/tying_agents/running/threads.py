"""How many CPU threads a run computes with: measured where that is asked, for size and company decide.

Small networks, and machines that are busy, are slower on several threads than on one: each waits for the last at the
end of every operation.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch

from tying_agents.run_config import RunConfig
from tying_agents.running.runner import make_env
from tying_env.distributed import world

Threads = int | Literal["auto"] | None

_TURNS = 5
_ENOUGH_S = 10.0  # of measuring, for networks whose steps are long
# More threads have to be faster by so much: otherwise noise would choose, and other threads round otherwise.
_WORTH = 1.1


def set_threads(asked: Threads, config: RunConfig, resumed: dict[str, Any] | None, note: Callable[[str], None]) -> None:
    """Set how many CPU threads this process computes with.

    Args:
        asked: so many, at least 1; "auto", what is fastest now; None, as many as a run that is resumed had, and torch's
            own choice otherwise.
        config: settings of the run.
        resumed: config.json of the run that is resumed.
        note: is told what was measured.

    Raises:
        ValueError: nothing can be measured: of several processes, or on another device.
    """
    if asked == "auto":
        note(_measure(config))
    elif asked is not None:
        torch.set_num_threads(asked)
    elif resumed is not None and "OMP_NUM_THREADS" not in os.environ and resumed.get("device") == "cpu":
        torch.set_num_threads(int(resumed.get("threads") or torch.get_num_threads()))


def _measure(config: RunConfig) -> str:
    """Train a network of the run's settings for some steps, set the number that was fastest, and say so."""
    most = torch.get_num_threads()
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    # All other settings stay: they may need one another. The run's own length is only begun.
    env = make_env(dataclasses.replace(config, env=dataclasses.replace(config.env, k=1), wrappers=(), rewards=()))
    device: torch.device = env.unwrapped.device  # type: ignore[attr-defined]
    if world().size > 1 or device.type != "cpu":
        raise ValueError(
            f"threads='auto' measures one process on the CPU, got {world().size} and {device}: give a number of threads"
        )
    tying, _ = env.reset(seed=0)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    began = time.perf_counter()
    for turn in range(_TURNS + 1):  # the first one warms up
        for count in counts:
            torch.set_num_threads(count)
            started = time.perf_counter()
            *_, terminated, truncated, _ = env.step(tying)
            if turn:
                seconds[count].append(time.perf_counter() - started)
            if over := terminated or truncated:
                break
        if over or (turn and time.perf_counter() - began > _ENOUGH_S):
            break
    env.close()
    if not all(seconds.values()):
        torch.set_num_threads(most)
        return f"CPU threads: {most}, torch's own choice. The run is too short to measure others."
    found = {count: statistics.median(times) for count, times in seconds.items()}
    best = 1
    for count in reversed(counts):
        if found[count] * _WORTH < found[best]:
            best = count
    torch.set_num_threads(best)
    others = ", ".join(f"{found[count]:.3g} s on {count}" for count in counts if count != best)
    return f"CPU threads: {best}. A training step took {found[best]:.3g} s{others and f', and {others}'}."
