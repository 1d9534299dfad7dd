"""The table at the end of a run."""

from collections.abc import Sequence
from typing import Any

from tying_env import partition
from tying_env.config.network import unit_of_bits
from tying_env.kinds import Kinds
from tying_env.reports.loading import conventional_bytes
from tying_env.reports.over_training import mean_over_training
from tying_env.runs.run_directory import CONFIG, SUMMARY, RunDirectory

_ITEM_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}


def summary_rows(directory: RunDirectory) -> list[tuple[str, str]]:
    """Return the table as (name, value) rows.

    Raises:
        FileNotFoundError: the run has not ended, so that it has no summary yet.
    """
    config, summary = directory.read_json(CONFIG), directory.read_json(SUMMARY)
    records = directory.read_metrics()
    collapsed = "" if summary.get("collapsed_at") is None else ", collapsed"
    rows = [("run", f"{config['agent']}, seed {config['seed']}, {summary['status']}{collapsed}")]
    tried = f" and {trials:,} in trials" if (trials := summary.get("trial_steps", 0)) else ""
    rows.append(("training", f"{summary['train_step']:,} steps{tried}, {summary['decisions']:,} decisions"))
    if names := [note.partition(":")[0] for note in summary.get("notes", ())]:
        rows.append(("signs of failure", ", ".join(names)))
    rows += _quality(summary, config)
    if records:
        rows += _tying(records, summary, config)
        rows += _cost(records, summary, config)
    return rows


def _quality(summary: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, str]]:
    best = summary["best_validation_perplexity"]
    unmeasured = best is None and summary["status"] != "diverged"
    rows = [("best validation perplexity", "not measured" if unmeasured else _number(best)), *_frequencies(summary)]
    test = summary["test"]
    if test is None:
        why = "as asked" if summary["status"] == "finished" else "the run did not finish"
        return [*rows, ("test perplexity", f"not measured: {why}")]
    for which in ("best", "final"):
        if (result := test[which]) is not None:
            label = {"best": "test perplexity, best network", "final": "test perplexity, final network"}[which]
            rows.append((label, f"{_number(result['perplexity'])}  ({_details(result, config)})"))
    return rows


def _frequencies(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what frequencies alone come to, and whether more was learned; nothing of a run of an earlier version."""
    rows = []
    for key, name, spec in (
        ("frequency_perplexity", "  of frequencies alone", ",.2f"),
        ("frequency_accuracy", "  most frequent class", ".1%"),
    ):
        known = {split: value for split, value in (summary.get(key) or {}).items() if value is not None}
        if known:
            rows.append((name, ", ".join(f"{split} {value:{spec}}" for split, value in known.items())))
    if (dependence := summary.get("input_dependence")) is not None:
        fallen = "" if summary["collapsed_at"] is None else f"; collapsed at step {summary['collapsed_at']:,}"
        rows.append(("input dependence, end", f"{dependence:.2g} of the logits' mean square{fallen}"))
    return rows


def _tying(records: Sequence[dict[str, Any]], summary: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, str]]:
    copied = config["env"].get("replication") == "copied"  # then all layers have weights of their own
    kinds = Kinds.described(config)
    layers = [kinds.n_units if copied else record["independent_layers"] for record in records]
    parameters = [record["trainable_parameters"] for record in records]
    conventional, n_units = summary["parameters_conventional"], kinds.n_units
    chance, _ = partition.chance_independent_layers(*kinds.sizes)

    def share(value: float) -> str:
        return f"{value / 1e6:,.2f} M ({value / conventional:.0%} of conventional)"

    return [
        (f"independent {kinds.counted}, mean", f"{_mean(layers):.2f} of {n_units}  (by chance alone: {chance:.2f})"),
        (f"independent {kinds.counted}, end", f"{layers[-1]} of {n_units}"),
        ("trainable parameters, mean", share(mean_over_training(parameters, records))),
        ("trainable parameters, end", share(parameters[-1])),
        ("  in conventional training", f"{conventional / 1e6:,.2f} M"),
        ("tied / untied events", f"{_total(records, 'tied_events'):,} / {_total(records, 'untied_events'):,}"),
    ]


def _cost(records: Sequence[dict[str, Any]], summary: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = ("weights_bytes", "gradients_bytes", "optimizer_state_bytes")
    held = [sum(record[kind] for kind in kinds) for record in records]
    peak = summary["peak_process_bytes"]
    item = _ITEM_BYTES[config["env"]["dtype"]]
    conventional = conventional_bytes(summary, config["env"])
    exchanged = []
    seconds = summary.get("seconds_per_epoch")  # a run of an earlier version does not say
    digits = 0 if seconds is not None and seconds >= 100 else 2
    epoch = [] if seconds is None else [("  once through the training data", f"{seconds:,.{digits}f} s")]
    if sent := [record["exchanged_bytes"] for record in records if "exchanged_bytes" in record]:
        all_layers = summary["parameters_conventional"] * item
        text = f"{_mean(sent) / 1e6:,.2f} MB a step ({_mean(sent) / all_layers:.0%} of conventional)"
        exchanged = [("gradients between processes", text)]
    return [
        ("speed, measuring included", f"{summary['tokens_per_second']:,.0f} tokens/s over {summary['seconds']:,.0f} s"),
        *epoch,
        (
            "weights, gradients, optimizer",
            f"mean {mean_over_training(held, records) / 1e6:,.1f} MB, peak {max(held) / 1e6:,.1f} MB",
        ),
        ("  in conventional training", f"{conventional / 1e6:,.1f} MB"),
        *exchanged,
        ("process memory, peak", "unknown" if peak is None else f"{peak / 1e6:,.0f} MB"),
    ]


def _details(result: dict[str, Any], config: dict[str, Any]) -> str:
    match config["env"].get("model"):
        case "vit" | "speech" as model:
            accuracy, examples = f"accuracy {result['accuracy']:.1%}", {"vit": "images", "speech": "utterances"}[model]
            return f"{accuracy}, cross-entropy {_number(result['mean_loss'], 3)} nats, {result['tokens']:,} {examples}"
        case "bert":
            return f"{result['tokens']:,} hidden tokens"
    unit = unit_of_bits([config["env"].get("tokenizer", "bytes")])
    return f"{_number(result['bits_per_byte'], 3)} {unit}, {result['tokens']:,} tokens"


def _number(value: float | None, digits: int = 2) -> str:
    return "not finite" if value is None else f"{value:,.{digits}f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _total(records: Sequence[dict[str, Any]], key: str) -> int:
    return sum(record[key] for record in records)
