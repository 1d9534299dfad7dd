"""The settings of fine-tuning. No torch here: `--help` has to be quick."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from tying_env.data.glue import TaskName
from tying_env.downstream.settings import TuningConfig, TuningMethod
from tying_env.runs.run_directory import BEST, FINAL, Which


@dataclass(frozen=True)
class FinetuneOptions:
    """Train the networks of runs on a task of GLUE.

    Raises:
        ValueError: a setting is outside its range.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories of a GPT-2 or a BERT."""
    task: TaskName
    """sst2, cola, qnli, mrpc or rte."""
    data: Path | None = None
    """Folder of GLUE's .tsv files (SST-2/train.tsv, ...); without it they come from the Hugging Face hub."""
    network: Which = "best"
    """The runs' networks with the best validation perplexity, or those at the end."""
    methods: tuple[TuningMethod, ...] = ("full",)
    """full: everything trains; lora: low-rank updates and the head; head: the head alone."""
    adapters: tuple[str, ...] = ()
    """Agents, by name or import string, that tie LoRA's updates while they train, a row for each, beside that of
    `conventional`."""
    k: int = 15
    """Training steps between two decisions of such a controller."""
    rank: int = 8
    """Rank of LoRA's updates."""
    seeds: int = 3
    """Seeds per row: 0, 1, 2, ... of head, updates, order of the examples and dropout."""
    train_examples: int = 0
    """Use only so many training examples, the first ones; 0 for all."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""
    threads: int = 1
    """CPU threads to compute with; small networks are slower on several."""
    out: Path | None = None
    """Write the results to this JSON file as they come; the same command resumes from what is there."""
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("give at least one run directory")
        places = [run.resolve() for run in self.runs]
        for values, what, same in ((self.runs, "run", places), (self.methods, "method", list(self.methods))):
            if twice := [value for i, value in enumerate(values) if same[i] in same[:i]]:
                raise ValueError(f"each {what} must be given once, got {twice[0]} twice")
        for name, least in (("seeds", 1), ("k", 1), ("rank", 1), ("train_examples", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.methods and not self.adapters:
            raise ValueError("give at least one of --methods or --adapters")

    def file(self, run: Path) -> Path:
        """Return the network file of a run."""
        return run / (BEST if self.network == "best" else FINAL)

    def arms(self) -> list[tuple[str, TuningMethod, str | None]]:
        """Return the rows of each run: name, method, and who ties the updates."""
        arms: list[tuple[str, TuningMethod, str | None]] = [(method, method, None) for method in self.methods]
        names: tuple[str, ...] = ("conventional", *self.adapters) if self.adapters else ()
        return arms + [(f"lora, tied by {name}", "lora", name) for name in dict.fromkeys(names)]
