"""Exports the network of a run or of an environment, with a model card."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tying_env.config.network import CUSTOM, is_own
from tying_env.env import LayerTyingEnv
from tying_env.export.companions import input_section, name_in_config, write_companions
from tying_env.export.tied_folder import CARD, is_transformers, model_config, write_tied
from tying_env.files import check_new, written_whole
from tying_env.partition import leaders
from tying_env.primary.checkpoint import TOKENIZER
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.owned import owned_parameters
from tying_env.primary.relaxation import has_deltas, merge_deltas
from tying_env.primary.residual import has_scales, merge_scales
from tying_env.render import replication_map_text
from tying_env.runs import RunDirectory, load_network
from tying_env.runs.run_directory import BEST, CONFIG, FINAL, SUMMARY, Which
from tying_env.tied_blocks import TiedBlocks

MODEL = "model.safetensors"  # as transformers names it, too


def export_tied(
    run: str | Path | LayerTyingEnv,
    folder: str | Path,
    *,
    network: Which = "best",
    dense: bool = False,
    model: str | None = None,
) -> Path:
    """Write a trained network into a new folder, every weight once; `load_tied` opens it.

    Args:
        run: a run directory; or an environment, whose network is taken as it is.
        folder: must not exist yet.
        network: of a run directory: the network with the best validation perplexity, or that at the end.
        dense: write a plain checkpoint instead, in which every layer has weights of its own, tied ones equal, for
            `from_pretrained` of transformers; of a module of the user's own its weights alone, for `load_model` of
            safetensors.
        model: of a run directory whose network code of the user's own makes: its import string. A file never makes
            code run.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder exists.
        FileNotFoundError: there is no such run or network.
        TypeError: the network is no transformers model; or it has low-rank deltas, scaled residual branches, or a class
            of the user's own, and is not to be `dense`.
        ValueError: the run is damaged, or `load_tied` could not make the model again.
        OSError: the folder cannot be written; nothing is left of it then.
    """
    folder = Path(folder)
    check_new(folder)
    if network not in ("best", "final"):
        raise ValueError(f"network must be 'best' or 'final', got {network!r}")
    if isinstance(run, LayerTyingEnv):
        primary, tied = _copy_of(run)
        tying, sizes, numbers = run.trainer.tied.tying.tolist(), dict(run.workload.sizes), None
        about = {"env": asdict(run.config), "data": run.workload.describe()}
        files = run.workload.files()
    else:
        directory = RunDirectory.open(Path(run))
        saved = load_network(directory.path / (BEST if network == "best" else FINAL), model=model)
        kept = directory.path / TOKENIZER
        files = {TOKENIZER: kept.read_bytes()} if saved.config.tokenizer == "checkpoint" else {}
        primary, tied, tying, sizes = saved.network, saved.tied, saved.tying, dict(saved.sizes)
        about = directory.read_json(CONFIG)
        summary = directory.read_json(SUMMARY) if (directory.path / SUMMARY).exists() else {}
        numbers = (summary.get("test") or {}).get(network)
    env, data = about["env"], about["data"]
    if not (dense and is_own(env["model"])):
        model_config(primary.model)  # whether it can be exported at all
    if has_deltas(primary.model) and not dense:
        raise TypeError(
            "its layers have low-rank deltas of their own, unknown to transformers: export it with dense=True"
        )
    if is_transformers(primary.model):
        name_in_config(primary.model.config, env, data, sizes)
    if has_scales(primary.model) and not dense:
        raise TypeError(
            "its residual branches are scaled (residual_scale), unknown to transformers: export it with dense=True"
        )
    card = _card(primary, tied, tying, about, numbers, dense, input_section(env, data, sizes), sizes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
        unfinished = Path(aside) / folder.name
        unfinished.mkdir()
        if dense:
            _write_dense(unfinished, primary, tied)
        else:
            write_tied(unfinished, primary, tied, tying)
        write_companions(unfinished, env, data, files)
        with written_whole(unfinished / CARD) as path:
            path.write_text(card, encoding="utf-8")
        unfinished.rename(folder)
    return folder


def _write_dense(folder: Path, network: PrimaryNetwork, tied: TiedBlocks) -> None:
    model: Any = network.model
    tied.change(np.arange(tied.n_units))  # every layer gets a copy of the weights it computes with
    if not is_transformers(model):
        from safetensors.torch import save_model

        save_model(model, str(folder / MODEL))
        return
    merge_deltas(model)
    merge_scales(network.blocks)
    model.config = model_config(model)
    model.save_pretrained(folder)


def _copy_of(env: LayerTyingEnv) -> tuple[PrimaryNetwork, TiedBlocks]:
    """Return a copy of an environment's network, so that exporting does not touch its training."""
    trainer = env.fork().trainer
    return trainer.network, trainer.tied


def _card(
    network: PrimaryNetwork,
    tied: TiedBlocks,
    tying: list[int],
    about: dict[str, Any],
    numbers: dict[str, Any] | None,
    dense: bool,
    its_input: str,
    sizes: dict[str, Any],
) -> str:
    """Return the model card: what it is, how it is tied, on what it was trained, how well it does."""
    unique = sum(p.numel() for _, p in owned_parameters(network, tied))
    borrowed = [i for i in range(tied.n_units) if i not in tied.owners()]
    conventional = unique + sum(p.numel() for i in borrowed for p in dict.fromkeys(tied.weights(i).values()))
    env = about["env"]
    name = type(network.model).__name__
    if not dense:
        load = "from tying_env.export import load_tied  # pip install tying-env\n\nmodel = load_tied(folder)"
    elif is_transformers(network.model):
        load = f"from transformers import {name}\n\nmodel = {name}.from_pretrained(folder)"
    else:
        code = about["data"].get("code", {})
        load = (
            f"from safetensors.torch import load_model\n\nmodel = ...  # as {code.get('import')} makes it, sha256 "
            f'{code.get("sha256")}\nload_model(model, f"{{folder}}/{MODEL}")'
        )
    library = "transformers" if is_transformers(network.model) else "pytorch"
    stored = (
        "Every layer is stored with weights of its own."
        if dense
        else "Every weight is stored once. `from_pretrained` and `save_pretrained` of transformers know nothing of "
        "that: for a checkpoint in their form, export once more with `--dense` (`export_tied(..., dense=True)`)."
    )
    own_data = env["model"] == CUSTOM or (is_own(env["model"]) and "vocab_size" not in sizes)
    data = "data of the user's own" if own_data else env["dataset"]
    tokens = f", tokenizer `{env['tokenizer']}`" if "vocab_size" in sizes else ""
    start = "random weights" if env["init_from"] is None else f"the checkpoint `{env['init_from']}`"
    measured = "Not measured on a test split."
    if numbers is not None:
        rows = [f"| {key.replace('_', ' ')} | {value:,.6g} |" for key, value in numbers.items() if value is not None]
        measured = "\n".join(["| on the test split | |", "| --- | --- |", *rows])
    training = {key: about[key] for key in ("agent", "seed", "data", "started", "git_commit") if key in about}
    return f"""---
library_name: {library}
tags: [layer-tying]
---
# {name} with {len(leaders(tying))} of {len(tying)} layers independent

{unique:,} parameters, {unique / conventional:.0%} of the {conventional:,} that it has with every layer independent.
{stored}

```python
{load}
```
{its_input}
## Tying

```
{replication_map_text(tying)}
```

## Training

Trained from {start} on `{data}`{tokens} while a controller tied its layers (Hay & Wolf, "Dynamic Layer Tying for
Parameter-Efficient Transformers", ICLR 2024).

```json
{json.dumps({**training, "env": env}, indent=2, default=str)}
```

## Results

{measured}
"""
