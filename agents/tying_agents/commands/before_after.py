"""What becomes of a network's predictions when it is made smaller: measured before and after, as a table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tying_env.config.network import unit_of_bits
from tying_env.data.corpus import Split

if TYPE_CHECKING:
    import torch
    from rich.table import Table
    from torch import nn

    from tying_env.primary.evaluation import Evaluation
    from tying_env.primary.workloads import Workload

# The splits that no weight was trained on.
_HELD_OUT: tuple[Split, ...] = ("validation", "test")


def measured(
    workload: "Workload", model: "nn.Module", device: "torch.device", windows: int = 0
) -> dict[str, "Evaluation"]:
    """Measure a network on so many sequences of the validation and test splits, those that its data have; 0: all."""
    model.to(device)
    found: dict[str, Evaluation] = {}
    for split in _HELD_OUT:
        try:
            workload.examples(split, 1)
        except ValueError:  # data of the user's own need have neither
            continue
        found[split] = workload.evaluate(model, split, windows, device)
    return found


def effects_table(
    title: str,
    workload: "Workload",
    columns: Mapping[str, Mapping[str, "Evaluation"]],
    windows: int = 0,
) -> "Table":
    """Return a table of perplexity and, where they can be had, bits per byte and accuracy, a column for each network.

    Args:
        title: above it.
        workload: that measured.
        columns: "before", "after": what `measured` gave.
        windows: sequences of each split on which it did; 0: all.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    if windows:
        title += f", {windows:,} sequences of each split"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    unit = unit_of_bits([workload.config.tokenizer]).replace("/", " per ")
    splits = [split for split in _HELD_OUT if all(split in found for found in columns.values())]
    for split in splits:
        every = [found[split] for found in columns.values()]
        table.add_row(f"{split} perplexity", *(f"{each.perplexity:,.3f}" for each in every))
        if all(each.bits_per_byte is not None for each in every):
            table.add_row(f"{split} {unit}", *(f"{each.bits_per_byte:.4f}" for each in every))
        if all(each.accuracy is not None for each in every) and workload.classifies:
            table.add_row(f"{split} accuracy", *(f"{each.accuracy:.2%}" for each in every))
        if (nothing := workload.frequency_perplexity(split, windows)) is not None:
            table.add_row(f"{split} perplexity of frequencies alone", *(f"{nothing:,.3f}" for _ in every))
    return table
