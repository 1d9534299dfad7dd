"""Exports the network of a run or of an environment, with a model card."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tying_env.config import with_later_settings
from tying_env.config.network import BUILT
from tying_env.env import LayerTyingEnv
from tying_env.export.card import MODEL, model_card
from tying_env.export.companions import input_section, name_in_config, write_companions
from tying_env.export.tied_folder import CARD, is_transformers, model_config, write_constants, write_tied
from tying_env.files import check_new, to_json, umask, written_whole
from tying_env.primary.additions import MERGED, additions_in, merge_additions
from tying_env.primary.checkpoint import TOKENIZER, without_bars
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.relaxation import has_deltas, merge_deltas
from tying_env.primary.residual import has_scales, merge_scales
from tying_env.primary.reuse import reuses
from tying_env.runs import LoadedRun, RunDirectory, SavedNetwork, load_network
from tying_env.runs.exported import FORMAT, TRAINING, is_absolute, without_folders
from tying_env.runs.run_directory import CONFIG, SUMMARY, Which
from tying_env.tied_blocks import TiedBlocks


class _Source(NamedTuple):
    """What is exported, and what is known of it."""

    network: PrimaryNetwork
    tied: TiedBlocks
    tying: list[int]
    sizes: dict[str, Any]
    about: dict[str, Any]  # settings and data
    files: dict[str, bytes]  # of the run directory
    numbers: dict[str, Any] | None  # measured on the test split
    which: Which | None  # of a run directory


def export_tied(
    run: str | Path | LayerTyingEnv,
    folder: str | Path,
    *,
    network: Which = "best",
    dense: bool = False,
    model: str | None = None,
) -> Path:
    """Write a trained network into a new folder, every weight once; `load_tied` opens it.

    A module of the user's own is exported like a model of transformers; `load_tied` is given a new one to fill.

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
        TypeError: the network has low-rank deltas, scaled residual branches, or a class of the user's own that builds
            on transformers', and is not to be `dense`; or its layers reuse attention, or something else that
            settings added cannot be a part of weights, and it is.
        ValueError: the run is damaged, or `load_tied` could not make the model again.
        OSError: the folder cannot be written; nothing is left of it then.
    """
    folder = Path(folder)
    check_new(folder)
    if network not in ("best", "final"):
        raise ValueError(f"network must be 'best' or 'final', got {network!r}")
    if isinstance(run, LayerTyingEnv):
        primary, tied = _copy_of(run)
        tying, sizes = run.trainer.tied.tying.tolist(), dict(run.workload.sizes)
        about = {"env": asdict(run.config), "data": run.workload.describe()}
        source = _Source(primary, tied, tying, sizes, about, run.workload.files(), None, None)
    else:
        directory = RunDirectory.open(Path(run))
        source = _of_run(directory, load_network(directory.network_file(network), model=model), network)
    return _write(source, folder, dense)


def export_changed(
    run: LoadedRun,
    folder: str | Path,
    what: str,
    about: dict[str, Any],
    numbers: dict[str, Any] | None,
    *,
    network: Which = "best",
    dense: bool = False,
) -> Path:
    """Write the network of a run directory as it is now, changed since `load_run` read it, into a new folder.

    Args:
        run: what `load_run` gave; to be done with, if `dense`: its layers have weights of their own afterwards.
        folder: as `export_tied`.
        what: the change, in a word the model card knows: "pruning", "units" (their order).
        about: what the card says of it, ready for JSON.
        numbers: measured since, on the test split; None for nothing.
        network: which one of the run's was changed.
        dense: as `export_tied`.

    Raises:
        As `export_tied`.
    """
    check_new(Path(folder))
    source = _of_run(RunDirectory.open(run.path), run.saved, network)
    return _write(source._replace(about=source.about | {what: about}, numbers=numbers), Path(folder), dense)


def _of_run(directory: RunDirectory, saved: SavedNetwork, network: Which) -> _Source:
    kept = directory.path / TOKENIZER
    files = {TOKENIZER: kept.read_bytes()} if saved.config.tokenizer == "checkpoint" else {}
    about = directory.read_json(CONFIG)
    about["env"] = with_later_settings(about["env"])
    summary = directory.read_json(SUMMARY) if (directory.path / SUMMARY).exists() else {}
    numbers = (summary.get("test") or {}).get(network)
    return _Source(saved.network, saved.tied, saved.tying, dict(saved.sizes), about, files, numbers, network)


def _write(source: _Source, folder: Path, dense: bool) -> Path:
    primary, tied, tying, sizes, about, files, numbers, network = source
    env, data = about["env"], about["data"]
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
    if reuses(primary) and dense:
        raise TypeError(
            "its tied layers reuse their leaders' attention (attention='reused'), which a plain checkpoint would not: "
            "export it without dense, for load_tied"
        )
    if dense and (unknown := [name for name in additions_in(primary.model) if name not in MERGED]):
        raise TypeError(
            f"its {unknown[0]} is no part of a plain checkpoint, which would compute something else: export it without "
            "dense, for load_tied"
        )
    card = model_card(primary, tied, tying, about, numbers, dense, input_section(env, data, sizes), sizes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
        unfinished = Path(aside) / folder.name
        unfinished.mkdir()
        if dense:
            _write_dense(unfinished, primary, tied, merged=is_transformers(primary.model) or env["model"] in BUILT)
        else:
            write_tied(unfinished, primary, tied, tying)
        if not is_transformers(primary.model):
            write_constants(unfinished, primary.model)
        write_companions(unfinished, env, data, sizes, files)
        training = _training(env, sizes, tying, primary, dense, network)
        with written_whole(unfinished / TRAINING) as path:
            path.write_text(to_json(training, indent=2) + "\n", encoding="utf-8")
        with written_whole(unfinished / CARD) as path:
            path.write_text(card, encoding="utf-8")
        for path in unfinished.iterdir():  # safetensors lets only the user read what it writes
            path.chmod(0o666 & ~umask())
        unfinished.rename(folder)
    return folder


def _write_dense(folder: Path, network: PrimaryNetwork, tied: TiedBlocks, merged: bool) -> None:
    """Write a plain checkpoint; `merged`: deltas and scales are ours, and become part of the weights."""
    model: Any = network.model
    tied.change(np.arange(tied.n_units))  # every layer gets a copy of the weights it computes with
    if merged:
        merge_deltas(model)
        merge_scales(network.blocks)
        merge_additions(model)
    if not is_transformers(model):
        from safetensors.torch import save_model

        save_model(model, str(folder / MODEL))
        return
    model.config = model_config(model)
    with without_bars():
        model.save_pretrained(folder)


def _copy_of(env: LayerTyingEnv) -> tuple[PrimaryNetwork, TiedBlocks]:
    """Return a copy of an environment's network, so that exporting does not touch its training."""
    trainer = env.fork().trainer
    return trainer.network, trainer.tied


def _training(
    env: dict[str, Any],
    sizes: dict[str, Any],
    tying: list[int],
    primary: PrimaryNetwork,
    dense: bool,
    network: Which | None,
) -> dict[str, Any]:
    """Return what training.json says; see `tying_env.runs.exported`."""
    # A data set's name can be opened anywhere, a path on this machine alone.
    dataset = None if is_absolute(env.get("dataset")) else env.get("dataset")
    return {
        "format": FORMAT,
        "network": network,
        "dense": dense,
        "blocks": list(primary.blocks_paths),
        "tying": tying,
        "sizes": without_folders(sizes),
        "env": {**without_folders(env), "dataset": dataset, "cache_dir": None},
    }
