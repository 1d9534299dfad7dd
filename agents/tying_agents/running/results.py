"""What a run leaves at its end: the final network, its map, the summary, the measurement on the test split."""

import math
import platform
from typing import Any

from tying_agents.loop import Loop
from tying_agents.running.collapse import measured_so_far
from tying_agents.running.recorder import Recorder, save
from tying_agents.running.signatures import failure_notes, say
from tying_env.compression.rounding import BITS
from tying_env.data.batches import steps_per_epoch
from tying_env.files import written_whole
from tying_env.primary.collapse import collapsed_at
from tying_env.primary.rows import network_bytes_in
from tying_env.render import replication_map_figure
from tying_env.runs import load_network
from tying_env.runs.run_directory import BEST, FINAL, MAP, SUMMARY


def conclude(loop: Loop, recorder: Recorder, stopped: str, chooses: bool) -> str:
    """Save the network, draw its map, sum up; return how the run ended.

    Args:
        loop: the run.
        recorder: knows its directory and the best network.
        stopped: the status if the run was stopped before its end.
        chooses: whether who ties decides by what it sees: no fixed pattern, trace, or chance.
    """
    env, directory = loop.inner, recorder.directory
    status = "diverged" if loop.diverged and loop.finished else "finished" if loop.finished else stopped
    save(loop, directory, FINAL)
    title = f"Replication map at training step {env.train_step}"
    figure = replication_map_figure(env.trainer.tied.tying, title, env.kinds)
    with written_whole(directory.path / MAP) as unfinished:
        figure.savefig(unfinished, format="png")
    measured, known = measured_so_far(loop, directory), _frequencies(loop)
    notes = failure_notes(loop, directory, status, chooses)
    summary = {
        "status": status,
        "stop_reason": loop.stop_reason if status == "stopped" else None,
        "episodes": loop.episode,
        "decisions": loop.decisions,
        "train_step": env.train_step,
        "trial_steps": env.trial_steps,
        "best_validation_perplexity": recorder.best,
        **known,
        "input_dependence": measured[-1].input_dependence if measured else None,
        "collapsed_at": collapsed_at(measured, known["frequency_perplexity"].get("validation")),
        "notes": notes,
        "learns_every": loop.learns_every,
        "test": None,
        "parameters_conventional": env.trainer.count_conventional(),
        "bytes_conventional": env.trainer.count_conventional_bytes(),
        "seconds": loop.seconds,
        "tokens_per_second": loop.tokens_per_second,
        "seconds_per_epoch": _seconds_per_epoch(loop),
        "peak_process_bytes": _peak_process_bytes(),
    }
    directory.write_json(SUMMARY, summary)
    say(loop, notes)
    return status


def _seconds_per_epoch(loop: Loop) -> float | None:
    """Return how long it takes to go through the training data once, measuring included; None where that has no end."""
    env, speed = loop.inner, loop.tokens_per_second
    steps = steps_per_epoch(env.trainer.batches)
    return steps * loop.inner.trainer.tokens / env.train_step / speed if steps and speed and env.train_step else None


def _frequencies(loop: Loop) -> dict[str, dict[str, float | None]]:
    """Return what the training split's frequencies alone come to, on what validation and test measure.

    That is their perplexity, and of a network that classifies the share of the most frequent class.
    """
    env, windows = loop.inner, {"validation": loop.inner.config.validation_windows}
    if loop.config is not None and loop.config.measure_test:
        windows["test"] = loop.config.test_windows
    splits = [split for split in windows if split == "test" or env.config.validate_every]
    workload = env.workload
    known = {"frequency_perplexity": {split: workload.frequency_perplexity(split, windows[split]) for split in splits}}
    if workload.classifies:
        known["frequency_accuracy"] = {split: workload.frequency_accuracy(split, windows[split]) for split in splits}
    return known


def measure_test(loop: Loop, recorder: Recorder, windows: int) -> None:
    """Measure the final network and the best one on the test split, and add that to the summary.

    With it goes what the best network takes in 8 bits a weight, or in as many as the limit on bytes counts in; and in
    each other number of bits, so that it can stand beside runs that count otherwise.

    Args:
        loop: the run, which has been concluded.
        recorder: knows its directory and the best network.
        windows: sequences, or images, to measure; 0 for the whole split.
    """
    env, directory, best = loop.inner, recorder.directory, None
    packed: dict[str, Any] | None = None
    loop.callbacks.note("Measuring on the test split ...")
    final = env.evaluate("test", windows)
    if math.isfinite(recorder.best):
        model = load_network(directory.path / BEST, env.device, env.workload).network.model
        best = env.workload.evaluate(model, "test", windows, env.device)
        bits = 8 if loop.config is None else loop.config.max_bytes_bits  # 8 where no limit says so
        counted: dict[int, int] = {each: network_bytes_in(each, model) for each in BITS}
        packed = {"bits": bits, "bytes": counted[bits], "bytes_by_bits": counted}
    test: dict[str, Any] = {"final": final._asdict(), "best": None if best is None else best._asdict()}
    directory.write_json(SUMMARY, directory.read_json(SUMMARY) | {"test": test, "packed": packed})


def _peak_process_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
