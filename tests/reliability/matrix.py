"""What works: forty families of transformers, each kind of adapter, each state that a caller may have switched.

python -m tests.reliability.matrix

Every cell trains a small network whose tying changes, and holds it against a plainly copied one (`tests/oracle.py`), or
against the same life without the state. What neither ties exactly nor is refused by name is a fault: it is printed, the
exit code is 1, and no page is written.
"""

import copy
import functools
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from tests import adapters, families
from tests.modes import MODES
from tests.oracle import PlainCopy
from tying_env.env import LayerTyingEnv
from tying_env.primary.own_tasks import Loss, transformers_loss

PAGE = Path(__file__).parents[2] / "docs" / "results" / "matrix.md"
TIED, WITHIN, SAME, FAULT = "tied", "within kinds", "same", "FAULT"
SETTINGS: dict[str, Any] = {"k": 1, "total_steps": 8, "batch_size": 4, "learning_rate": 0.05, "device": "cpu"}
ROUNDING = 1e-5
# What a refusal says, and the few words for it. A refusal that is none of these is a fault.
REASONS = {
    r"blocks must not share Parameters yet": "blocks share a Parameter",
    r"is frozen, none of its parameters takes a gradient": "nothing in a block trains",
    r"no two blocks are alike": "no two blocks are alike",
    r"has a hook of its own": "a hook on a Parameter",
}
SHARED, LEADER = "tying", "leader's gradient"
TYING = (SHARED, LEADER)
COLUMNS = (*TYING, *MODES)


PROSE = """# What can be tied

```bash
make matrix
```

Made by this command, words and all, with {libraries}. {n_families} families of transformers, a
small network of each with random weights, and {n_adapters} kinds of adapter of peft, each on a LLaMA.

- **tied**: three random tyings with training steps between them. Every block and the network give what those of a
  network with plain copies give (up to 1e-5), and a leader's gradient is the sum over its group's copies.
- **within kinds**: the same, with `unequal_blocks="within-kind"`, for blocks are of several kinds, such as those of an
  encoder and a decoder.
- **same**: two steps under this state of torch tell what they tell without it, to the bit, and a twin that was restored
  from the saved state agrees.
- **refused**: by name, when the environment is made; the first cell says why.

"Leader's gradient" is `gradient="leader"`; the columns after it are what a caller has switched in torch: no_grad,
inference_mode, an outer autocast, the default dtype float64, the default device meta, deterministic algorithms.

{families}

Swin is tied when a stage is named: `blocks="swin.encoder.layers.1.blocks"`. Where blocks share an adapter, or what
trains is outside of all blocks, there is nothing in a block to tie.

{adapters}
"""


class Row(NamedTuple):
    """A network, a batch of it, and its loss if that is not the model's own."""

    make: Callable[[], nn.Module]
    draw: Callable[[np.random.Generator], Any]
    loss: Loss | None = None

    def environment(self, **settings: Any) -> LayerTyingEnv:
        return LayerTyingEnv(model=self.make, batches=self.draw, loss=self.loss, **SETTINGS | settings)


@functools.cache
def kinds_of(row: Row) -> dict[str, Any]:
    """Return the setting that ties within kinds where the blocks differ."""
    try:
        row.environment()
    except ValueError as error:
        if "unequal_blocks='within-kind'" not in str(error):
            raise
        return {"unequal_blocks": "within-kind"}
    return {}


FAMILIES = {name: Row(family.make, family.draw, family.loss) for name, family in families.FAMILIES.items()}
ADAPTERS = {
    kind: Row(lambda kind=kind: adapters.adapted(kind), lambda rng, kind=kind: adapters.draw(kind, rng))  # type: ignore[misc]
    for kind in adapters.KINDS
}


def cell(row: Row, column: str) -> str:
    """Return what comes of a network.

    Raises:
        AssertionError: it does not compute what it should.
        Exception: whatever is raised that is no refusal by name.
    """
    try:
        if column in MODES:
            return _in_mode(row, column)
        return _tied(row, "shared" if column == SHARED else "leader")
    except ValueError as error:
        for pattern, words in REASONS.items():
            if re.search(pattern, str(error)):
                return f"refused: {words}"
        raise


def _tied(row: Row, gradient: str) -> str:
    kinds = kinds_of(row)
    env = row.environment(gradient=gradient, **kinds)
    env.reset(seed=0)
    batch = {name: torch.as_tensor(part) for name, part in row.draw(np.random.default_rng(0)).items()}

    def loss(model: nn.Module) -> Tensor:
        return transformers_loss(model, batch)[0] if row.loss is None else row.loss(model, batch)

    plain = PlainCopy(env.trainer, _copy(env.trainer.network.model, row.make()), loss, ROUNDING)
    env.trainer.train(1)  # the frozen start
    rng, changed = np.random.default_rng(1), 0
    for _ in range(3):
        before = plain.tying
        plain.tie([int(rng.integers(i + 1)) for i in range(env.config.n_layer)])
        changed += plain.tying != before
        assert plain.computes_alike(), "after a tying a block computes otherwise than a plainly copied one"
        assert plain.gradients_add_up(gradient), "a leader's gradient is not that of plain copies"
        result = env.trainer.train(1)
        assert not result.diverged, "training diverged"
        plain.follow()
        assert plain.computes_alike(), "after a training step a block computes otherwise than a plainly copied one"
    assert changed, "no tying differed from the last"
    return WITHIN if kinds else TIED


def _copy(model: nn.Module, new: nn.Module) -> nn.Module:
    """Return a copy of a network, in which that trains which trains in a new one: not all does at the frozen start.

    A copy, for some adapters keep constants of the weights that they were made with, and no state has these.
    """
    copied = copy.deepcopy(model)
    for (_, mine), (_, theirs) in zip(copied.named_parameters(), new.named_parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    return copied


def _in_mode(row: Row, mode: str) -> str:
    expected = _usual_life(row)
    with MODES[mode]():
        found = _life(row)
    np.testing.assert_equal(found, expected)
    return SAME


@functools.cache
def _usual_life(row: Row) -> list[Any]:
    return _life(row)


def _life(row: Row) -> list[Any]:
    """Return what an environment says of two steps; a restored twin says the same."""
    kinds = kinds_of(row)
    env, twin = row.environment(**kinds), row.environment(**kinds)
    first, second = (np.minimum(env.kinds.position, target) for target in (0, 2))
    told = [env.reset(seed=0), env.step(first)]
    twin.load_state_dict(env.state_dict())
    expected = env.step(second)
    np.testing.assert_equal(twin.step(second), expected)
    return [*told, expected]


def cells_of(row: Row, columns: Sequence[str] = COLUMNS) -> list[str]:
    """Return the cells of a row; a fault's is what was raised, which is printed."""
    cells = []
    for column in columns:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of transformers and peft, about each other
            try:
                cells.append(cell(row, column))
            except Exception as error:  # a network may raise anything
                traceback.print_exc()
                cells.append(f"{FAULT} {column}: {type(error).__name__}")
    return cells


def line(name: str, cells: list[str]) -> str:
    """Return a row of the page; the reason of a refusal is in its first cell alone."""
    short = [cell.partition(":")[0] if cell == cells[0] else cell for cell in cells[1:]]
    return f"| {' | '.join([name, cells[0], *short])} |"


def page(families: list[str], adapters: list[str]) -> str:
    """Return the page with these rows."""
    heads = [["family", *COLUMNS], ["adapter", *TYING]]
    tops = [f"| {' | '.join(head)} |\n|{' --- |' * len(head)}" for head in heads]
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    return PROSE.format(
        libraries=libraries,
        n_families=len(families),
        n_adapters=len(adapters),
        families="\n".join([tops[0], *families]),
        adapters="\n".join([tops[1], *adapters]),
    )


def main() -> int:
    """Fill the page; return 1, and leave it as it was, if there is a fault."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    lines: dict[str, list[str]] = {}
    faults = 0
    for title, rows, columns in (("families", FAMILIES, COLUMNS), ("adapters", ADAPTERS, TYING)):
        for name, row in rows.items():
            started, cells = time.monotonic(), cells_of(row, columns)
            faults += sum(cell.startswith(FAULT) for cell in cells)
            lines.setdefault(title, []).append(line(name, cells))
            print(f"{lines[title][-1]}  ({time.monotonic() - started:.1f} s)", flush=True)
    if not faults:
        PAGE.write_text(page(**lines), encoding="utf-8")
    print(f"{faults} faults; {PAGE} {'is as it was' if faults else 'written'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
