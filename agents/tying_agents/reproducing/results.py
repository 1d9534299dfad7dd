"""What a reproduction has come to: results of its runs, and the pages that show them."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from tying_env.runs import RunDirectory
from tying_env.runs.run_directory import CONFIG, SUMMARY
from tying_env.seeding import torch_stream

KINDS = ("weights_bytes", "gradients_bytes", "optimizer_state_bytes")
PRODUCT = {"cuda": 8192, "cpu": 1024}  # width of the square matrices whose product gives the chip's rate


def result_of(path: Path, measured: dict[str, Any]) -> dict[str, Any] | None:
    """Return what one run has come to; None before the end of its first slice.

    Args:
        path: the run directory.
        measured: what was measured beside its records, nothing if that is lost: the seconds of a training step, the
            chip's operations in a second, the peak of CUDA's counter (0 elsewhere).
    """
    if not (path / SUMMARY).exists():
        return None
    directory = RunDirectory(path)
    summary, records = directory.read_json(SUMMARY), directory.read_metrics()
    config = directory.read_json(CONFIG)
    env, tokens = config["env"], config["data"]["train"]
    epoch = max(1, tokens // (env["batch_size"] * env["seq_len"]))
    by_epoch: dict[int, float] = {}
    for record in records:
        if record["validation_perplexity"] is not None:
            by_epoch[record["train_step"] // epoch] = record["validation_perplexity"]
    # Every layer computes, tied or not: 6 operations a token for each weight that a product uses, and attention's.
    width, layers = env["n_embd"], env["n_layer"]
    vocabulary = 50257 if env["tokenizer"] == "gpt2" else 256
    operations = 6 * (layers * 12 * width**2 + vocabulary * width) + 12 * layers * env["seq_len"] * width
    return {
        "status": summary["status"],
        "train_step": summary["train_step"],
        "of_steps": env["total_steps"],
        "tokens_per_second": summary["tokens_per_second"],
        "seconds_per_epoch": summary.get("seconds_per_epoch"),  # a run of an earlier version does not say
        "share_of_chip": operations * env["batch_size"] * env["seq_len"] / seconds / measured["chip_flops_per_second"]
        if (seconds := measured.get("step_seconds"))
        else None,
        "cuda_peak_bytes": measured.get("cuda_peak_bytes", 0),
        "bytes": {kind: max((record[kind] for record in records), default=0) for kind in KINDS},
        "bytes_conventional": 4 * summary["parameters_conventional"],  # of the weights; as much each of the others
        "validation_perplexity_by_epoch": by_epoch,
        "best_validation_perplexity": summary["best_validation_perplexity"],
        "test": summary["test"],
    }


def product_rate(device: torch.device) -> float:
    """Return operations in a second of a large product in bfloat16 on this device, measured now."""
    n = PRODUCT[device.type]
    generator = torch_stream(0, "product", device)
    a, b = (torch.randn(n, n, device=device, generator=generator).to(torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(11):
        begin = time.perf_counter()
        torch.mm(a, b).sum().item()  # reading a number waits for a GPU
        seconds.append(time.perf_counter() - begin)
    return float(2 * n**3 / statistics.median(seconds))


COLUMNS = (
    *("", "steps", "tokens/s", "seconds per epoch", "share of the chip's bf16 rate, training steps alone"),
    "best validation perplexity",
)
MEMORY = (*("peak", "weights", "gradients", "optimizer state", "of conventional"), *("all else", "CUDA's counter"))

Results = dict[str, dict[str, Any] | None]


def lines(results: Results) -> list[tuple[str, ...]]:
    """Return the cells of the table, a tuple for each run."""
    found = []
    for agent, result in results.items():
        if result is None:
            found.append((agent, "nothing yet", *[""] * (len(COLUMNS) - 2)))
            continue
        share, best = result["share_of_chip"], result["best_validation_perplexity"]
        epoch = result.get("seconds_per_epoch")  # results of before have none
        found.append(
            (
                agent,
                f"{result['train_step']:,} of {result['of_steps']:,}",
                f"{result['tokens_per_second']:,.0f}",
                "not known" if epoch is None else f"{epoch:,.{0 if epoch >= 100 else 1}f}",
                "not measured yet" if share is None else f"{share:.1%}",
                "not measured yet" if best is None else f"{best:,.2f}",
            )
        )
    return found


def memory_lines(results: Results) -> list[tuple[str, ...]]:
    """Return the cells of the table of memory, a tuple for each run that has begun.

    What CUDA's counter saw beyond weights, gradients and optimizer state are mostly activations.
    """
    found = []
    for agent, result in results.items():
        if result is None:
            continue
        held, peak = sum(result["bytes"].values()), result["cuda_peak_bytes"]
        conventional = results["conventional"]
        counter = (_megabytes(peak - held), _megabytes(peak)) if peak else ("no GPU", "no GPU")
        if peak and conventional is not None and conventional["cuda_peak_bytes"]:
            counter = (counter[0], f"{counter[1]} ({peak / conventional['cuda_peak_bytes']:.3f} x)")
        kinds = (_megabytes(result["bytes"][kind]) for kind in KINDS)
        found.append((agent, *kinds, f"{held / (4 * result['bytes_conventional']):.3f} x", *counter))
    return found


def _megabytes(n: float) -> str:
    return f"{n / 1e6:,.1f} MB"


def as_table(results: Results) -> Table:
    """Return the results for the terminal."""
    table = Table()
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for line in lines(results):
        table.add_row(*line)
    return table


def table_as_markdown(results: Results, measured: dict[str, dict[str, Any]]) -> str:
    """Return the results as tables in Markdown, with the validation perplexity after each epoch."""
    text = [*_markdown(COLUMNS, lines(results)), "", *_markdown(MEMORY, memory_lines(results)), ""]
    for agent, one in measured.items():
        rate, step = one["chip_flops_per_second"] / 1e12, one["step_seconds"]
        took = "" if step is None else f", a training step {1e3 * step:,.1f} ms"
        text.append(f"- {agent}: {one['chip']}, {rate:.2f} TFLOP/s in bfloat16{took}")
    for agent, result in results.items():
        if result is not None and result["validation_perplexity_by_epoch"]:
            values = ", ".join(f"{e}: {v:,.1f}" for e, v in result["validation_perplexity_by_epoch"].items())
            text.append(f"- {agent}, validation perplexity by epoch (counted from 0): {values}")
    return "\n".join(text)


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (columns, tuple("---" for _ in columns), *rows)]
