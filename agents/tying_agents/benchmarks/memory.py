"""Bytes by kind during training: exact accounting without memory, and the same on real tensors.

torch's own tracker (`torch.distributed._tools.mem_tracker.MemTracker`) follows every storage from its making to its
end. On fake tensors, which have shapes and devices but no memory (torch's meta kernels compute them), it gives exact
bytes for networks of any size; on real ones it gives what a run holds. One training step is followed, with the
optimizer's state filled.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import transformers.masking_utils
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType
from torch.utils._python_dispatch import TorchDispatchMode

from tying_agents.benchmarks.settings import MemorySizes, neighbours
from tying_agents.benchmarks.synthetic import RandomTokens
from tying_agents.benchmarks.turns import Note, TableRow
from tying_env import PAPER, EnvConfig
from tying_env.primary.assembly import build_trainer
from tying_env.primary.models import find_device

KINDS = ("weights", "gradients", "optimizer state", "activations")
_KIND_OF = {"Parameter": "weights", "Gradient": "gradients", "Optstate": "optimizer state"}  # all else: activations
TRAINED, BUILT = "weights + gradients + optimizer state", "while it is built"
_AT_PEAK = tuple(f"{kind}, peak" for kind in KINDS)
_SUMS = (TRAINED, "total, peak", "total, average", BUILT)
PAPER_VOCABULARY = 50257


class Bytes(NamedTuple):
    """Bytes by kind."""

    weights: float
    gradients: float
    optimizer_state: float
    activations: float  # of the forward pass, and whatever else is there for a while

    @property
    def trained(self) -> float:
        """Weights, gradients and optimizer state."""
        return self.weights + self.gradients + self.optimizer_state

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


class Account(NamedTuple):
    """What one training step holds."""

    peak: Bytes  # at the moment of the largest total
    average: Bytes  # over the operations of the step
    trained_at_most: float  # weights + gradients + optimizer state at their own largest
    built: float  # the largest total while the network is built
    allocated: int  # the largest that CUDA's own counter saw; 0 elsewhere
    floor: int  # 16 bytes (in float32) for every parameter that trains, the held weights that do not, step counters


class _Tracker(MemTracker):
    """torch's tracker, which takes it that every Parameter needs a gradient."""

    def _track_module_params_and_buffers(
        self, module: torch.nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        for parameter in module.parameters():
            if parameter.requires_grad and parameter not in self._param_to_grad_hook_handles:
                hook = parameter.register_post_accumulate_grad_hook(self._note_gradient)
                self._param_to_grad_hook_handles[parameter] = (hook, hook)
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)

    def _pre_fw_hook(self, module: torch.nn.Module, inputs: Any) -> None:
        if not self._mod_tracker.is_bw:  # the next part of a batch: each module's own numbers are of no interest here
            self.memory_tracking.pop(module, None)
        super()._pre_fw_hook(module, inputs)

    def _update_peak_stats(self, peak_state: Any) -> None:
        """Do nothing: `_Watch` sees every peak, and to keep those of each module takes half of the time."""

    def _note_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._update_and_maybe_create_winfos(parameter.grad, _MemRefType.GRAD)


class _Watch(TorchDispatchMode):
    """Looks at the tracker after every operation."""

    def __init__(self, tracker: MemTracker, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tracker, self._device = tracker, device
        self.seen: list[Bytes] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        snapshots = self._tracker._curr_mem_snap
        for device, snapshot in snapshots.items():
            if device.type == self._device.type:
                self.seen.append(_by_kind(snapshot))
        return result


class _Numbers(TorchDispatchMode):
    """Answers for fake tensors where a step reads a number before its end: the loss's gradient by itself, 1."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return 1.0 if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


def _by_kind(snapshot: dict[Any, int]) -> Bytes:
    held = dict.fromkeys(KINDS, 0.0)
    for kind, n in snapshot.items():
        if kind != "Total":
            held[_KIND_OF.get(kind.value, "activations")] += n
    return Bytes(*held.values())


@contextlib.contextmanager
def _fake_tensors() -> Iterator[None]:
    """Make tensors without memory; two places in transformers would read from them, or replace them, to no avail."""
    masking, model = transformers.masking_utils, transformers.PreTrainedModel
    packed, to = masking.find_packed_sequence_indices, model.to
    masking.find_packed_sequence_indices = lambda position_ids: None  # what it finds for our batches, too
    model.to = lambda self, *args, **kwargs: self  # it is where it belongs already
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Numbers():  # type: ignore[no-untyped-call]
            yield
    finally:
        masking.find_packed_sequence_indices, model.to = packed, to


def account(config: EnvConfig, vocab_size: int, tying: npt.NDArray[np.int64] | None, fake: bool) -> Account:
    """Follow one training step of the network that `config` describes.

    Args:
        config: sizes and options.
        vocab_size: V.
        tying: shape (L,); None for the frozen start.
        fake: without memory, or for real.
    """
    device = torch.device("cpu") if fake else find_device(config.device)
    with _fake_tensors() if fake else contextlib.nullcontext():
        tracker = _Tracker()
        with tracker, _Watch(tracker, device) as building:
            trainer = build_trainer(RandomTokens(config, vocab_size), device, 0, tying)
        drawn = trainer.batches.next_batch()
        ids = torch.zeros(drawn.shape, dtype=torch.int64) if fake else torch.from_numpy(drawn)
        for parameter in trainer.trainable_parameters():  # fill the optimizer's state: what a first step is for here
            parameter.grad = torch.zeros_like(parameter)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        tracker = _Tracker()
        tracker.track_external(trainer.network.model, trainer.optimizer)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with tracker, _Watch(tracker, device) as watch:
            trainer.compute_gradients(ids.to(device))
            trainer.optimizer.step()
            held = trainer.memory()
            trainer.optimizer.zero_grad(set_to_none=True)
    seen = watch.seen
    peak = max(seen, key=lambda one: one.total)
    average = Bytes(*(statistics.fmean(column) for column in zip(*seen, strict=True)))
    counters = 4 * len(trainer.trainable_parameters())  # AdamW counts its steps for every tensor
    unique = sum(p.numel() * p.element_size() for p in trainer.trainable_parameters())
    frozen = held.weights - unique
    allocated = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    built = max((one.total for one in building.seen), default=0.0)
    return Account(peak, average, max(one.trained for one in seen), built, allocated, 4 * unique + frozen + counters)


def cases(n_layer: int, n_groups: int) -> dict[str, tuple[npt.NDArray[np.int64] | None, dict[str, Any]]]:
    """Return what is compared: the tying (None: the frozen start) and the settings of each."""
    tied = neighbours(n_layer, n_groups)
    return {
        "conventional": (np.arange(n_layer), {}),
        f"{n_groups} leaders, shared gradient": (tied, {}),
        f"{n_groups} leaders, leader's gradient": (tied, {"gradient": "leader"}),
        "frozen start, held": (None, {}),
        "frozen start, redrawn": (None, {"frozen_weights": "redrawn"}),
    }


def account_rows(base: EnvConfig, vocab_size: int, n_groups: int, where: str, note: Note, fake: bool) -> list[TableRow]:
    """Account for every case, without and with activation checkpointing on both sides.

    Raises:
        RuntimeError: more is held than 16 bytes for every parameter that trains and 4 for every other that is held (and
            for every tensor's step counter).
    """
    rows = []
    for checkpointed in (False, True):
        how = f"{where}, checkpointed" if checkpointed else where
        first: dict[str, float] = {}
        for name, (tying, settings) in cases(base.n_layer, n_groups).items():
            config = dataclasses.replace(base, checkpoint_blocks=checkpointed, **settings)
            begin = time.perf_counter()
            found = account(config, vocab_size, tying, fake)
            note(f"{how}: {name}, {time.perf_counter() - begin:.1f} s")
            # (torch's tracker rounds up to the 512 bytes that CUDA's allocator gives out at least)
            if found.trained_at_most != found.floor and not found.allocated:
                raise RuntimeError(f"{name} holds {found.trained_at_most} bytes, expected {found.floor}")
            values = {TRAINED: found.trained_at_most, BUILT: found.built}
            for when, held in (("peak", found.peak), ("average", found.average)):
                values |= {f"{kind}, {when}": n for kind, n in zip(KINDS, held, strict=True)}
                values |= {f"total, {when}": held.total}
            if found.allocated:
                values |= {"CUDA's counter, peak": found.allocated}
            for kind, n in values.items():
                # What is there while a network is built, to what conventional training holds without activations.
                other = TRAINED if kind == BUILT else kind
                ratio = n / first[other] if first.get(other) else None
                against = None if ratio is None else f"{how}: conventional: {other}"
                wanted = _required(name, kind, checkpointed) if fake else None
                rows.append(TableRow(f"{how}: {name}: {kind}", n, n, n, "bytes", ratio, against, wanted, ratio, ratio))
            first = first or values
    return rows


def _required(name: str, kind: str, checkpointed: bool) -> str | None:
    if "leaders" in name and kind == TRAINED:
        return "at most 0.20"
    if name == "frozen start, redrawn" and kind in (TRAINED, BUILT):
        return "at most 0.25"
    if "leaders" in name and checkpointed and kind == "total, peak":
        return "at most 0.30"
    return None


def measure_memory(base: EnvConfig, sizes: MemorySizes, note: Note) -> list[TableRow]:
    """The benchmark's own network, on fake tensors and on real ones; then the paper's, on fake tensors.

    Raises:
        RuntimeError: real tensors do not come to the same bytes as fake ones.
    """
    small = f"{base.n_layer} x {base.n_embd}"
    exact = account_rows(base, PAPER_VOCABULARY, 3, f"{small}, exact", note, fake=True)
    real = account_rows(base, PAPER_VOCABULARY, 3, f"{small}, measured", note, fake=False)
    on_cpu = find_device(base.device).type == "cpu"
    for one, other in zip(exact, real, strict=True) if on_cpu else ():
        if one.median != other.median and "average" not in one.name:
            raise RuntimeError(f"{one.name} is {one.median} bytes on fake tensors and {other.median} on real ones")
    rows = [row._replace(required=None) for row in real]
    if not sizes.paper_n_layer:
        return rows
    shapes = ("n_layer", "n_embd", "n_head", "seq_len", "batch_size")
    paper = EnvConfig(**{name: PAPER[name] for name in shapes} | {"n_layer": sizes.paper_n_layer})
    where = f"{paper.n_layer} x {paper.n_embd}, exact"
    return rows + account_rows(paper, PAPER_VOCABULARY, sizes.leaders, where, note, fake=True)


def memory_table(title: str, rows: Sequence[TableRow]) -> Group:
    """Return a table for each network, a line for each case: megabytes by kind, and ratios to conventional training."""
    headings = ["weights", "grad.", "optim.", "activ.", "w+g+o", "peak", "average", "built"]
    tables = []
    for where, cases_there in _by_case(rows).items():
        table = Table("MB", title=f"{title}: {where}", title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for case, found in cases_there.items():
            table.add_row(
                case, *(_megabytes(found[kind]) for kind in _AT_PEAK), *(_compared(found[kind]) for kind in _SUMS)
            )
        tables.append(table)
    return Group(*tables)


def table_of_memory(rows: Sequence[TableRow]) -> list[list[str]]:
    """Return the same as one table of cells, with its heading."""
    table = [["MB", *KINDS, TRAINED, "all at the peak", "all on average", BUILT]]
    for where, cases_there in _by_case(rows).items():
        for case, found in cases_there.items():
            summed = (_compared(found[kind]).replace("\n", ", ") for kind in _SUMS)
            table.append([f"{where}: {case}", *(_megabytes(found[kind]) for kind in _AT_PEAK), *summed])
    return table


def _by_case(rows: Sequence[TableRow]) -> dict[str, dict[str, dict[str, TableRow]]]:
    found: dict[str, dict[str, dict[str, TableRow]]] = {}
    for row in rows:
        where, case, kind = row.name.split(": ")
        found.setdefault(where, {}).setdefault(case, {})[kind] = row
    return found


def _megabytes(row: TableRow) -> str:
    return f"{row.median / 1e6:,.{0 if row.median >= 1e9 else 1}f}"


def _compared(row: TableRow) -> str:
    ratio = None if row.ratio is None else f"{row.ratio:.3f} x"
    wanted = None if row.required is None else row.required.replace("at most", "\N{LESS-THAN OR EQUAL TO}")
    return "\n".join(line for line in (_megabytes(row), ratio, wanted) if line)
