"""Run directories and exports that a command is given, looked at before torch is imported, which takes seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tying_agents.running.checks import check_dataset
from tying_env.config.network import is_own, unit_of_bits, unit_of_perplexity
from tying_env.files import check_new
from tying_env.plugins import named_again
from tying_env.runs.exported import is_export, is_packed, read_training
from tying_env.runs.layouts import modern
from tying_env.runs.run_directory import CONFIG, RunDirectory, Which

if TYPE_CHECKING:
    import torch

    from tying_env.runs import LoadedRun


def settings_of_network(path: Path, network: Which, packed: bool = False) -> dict[str, Any]:
    """Return the settings of the environment in which a network was trained, as config.json has them.

    Args:
        path: the run directory, or an exported folder; or a packed file.
        network: which of its networks.
        packed: whether a packed file will do; it imports torch.

    Raises:
        FileNotFoundError: there is no run, or it has no network yet.
        ValueError: config.json is damaged, or an exported folder or packed file has not this network, or is none here.
    """
    if is_packed(path):
        if not packed:
            raise ValueError(f"{path} is a packed network, rounded already: give the run or folder that it was made of")
        if network == "final":
            raise ValueError(f"{path} is a packed file, which has one network: leave --network out")
        from tying_env.compression.packed_file import read_file
        from tying_env.export.described import ELSEWHERE

        env = read_file(path).about["config"]
        return {"model": "gpt2", **env, "dataset": None if env.get("dataset") == ELSEWHERE else env.get("dataset")}
    if is_export(path):
        about = read_training(path)
        if network == "final" and about.get("network") != "final":
            raise ValueError(f"{path} is an exported folder, which has one network: leave --network out")
        return {"model": "gpt2", **about["env"]}
    directory = RunDirectory.open(path)
    directory.network_file(network)
    env = modern(directory.read_json(CONFIG)).get("env")
    if not isinstance(env, dict):
        raise ValueError(f"{path / CONFIG} is not of a run: it has no settings of an environment")
    return {"model": "gpt2", **env}


def open_network(path: Path, network: Which, device: "torch.device", model: str | None) -> "LoadedRun":
    """Read the network of a run directory, an exported folder or a packed file.

    Raises:
        As `load_run`, `load_export` and `open_packed`.
    """
    if is_packed(path):
        from tying_env.compression import open_packed

        return open_packed(path, device, model)
    if is_export(path):
        from tying_env.export import load_export

        return load_export(path, device, model)
    from tying_env.runs import load_run

    return load_run(path, network, device, model)


def refuse_unnamed_code(env: dict[str, Any], path: Path, model: str | None) -> None:
    """Refuse a network of the user's own that was not named, and a name where the network is not the user's own.

    Args:
        env: what `settings_of_network` gave.
        path: the run directory.
        model: the import string that the user gives; None for none.

    Raises:
        ValueError: either.
    """
    own = is_own(str(env["model"]))
    if own and model is None:
        named_again({"import": env["model"]}, None, str(path), "model")
    if not own and model is not None:
        raise ValueError(f"--model is for a network of code of the user's own; {path} has the model {env['model']!r}")


def check_data(env: dict[str, Any], path: Path, dataset: str | None) -> None:
    """Check that data are named that a network can be measured on, without torch.

    Args:
        env: what `settings_of_network` gave.
        path: the run directory, or an exported folder.
        dataset: what the user gives; None for the network's own.

    Raises:
        ValueError: none are, or there are none of this name.
    """
    if dataset is None and env.get("dataset", "") is None:
        raise ValueError(f"{path} does not say where the data are that it was trained on: name some by --dataset")
    if named := dataset or env.get("dataset"):
        check_dataset(str(env["model"]), str(named))


def refuse_unlike(settings: dict[Path, dict[str, Any]], *, in_bits: bool = False) -> None:
    """Check that results of several networks can stand in one table.

    Args:
        settings: of each run what `settings_of_network` gave.
        in_bits: whether texts are compared in bits per byte, which is one unit for all tokenizers of bytes.

    Raises:
        ValueError: they count in different units; the message names two.
    """
    first: dict[str, Path] = {}
    for path, env in settings.items():
        model, tokenizers = str(env["model"]), [env.get("tokenizer", "bytes")]
        bits = in_bits and model not in ("bert", "vit", "speech")
        first.setdefault(unit_of_bits(tokenizers) if bits else unit_of_perplexity(model, tokenizers), path)
    if len(first) > 1:
        (one, path), (other, another) = list(first.items())[:2]
        raise ValueError(
            f"results of one table must be in one unit: those of {path} are {one}, those of {another} {other}. Make a "
            "table for each"
        )


def place_for(out: Path | None, runs: Sequence[Path], ending: str, one: bool, hint: str) -> Path:
    """Return where what is made of networks goes; where --out does not say it, beside the run, by its name.

    Args:
        out: what --out says.
        runs: the networks.
        ending: of the name beside the run.
        one: whether one thing is made of one network, and not tables.
        hint: what to do if it is there already.

    Raises:
        FileExistsError: it is there already; of tables, as no folder.
        ValueError: it is made of more than one network, or of one in more than one way, and --out is missing.
    """
    if out is None and not one:
        raise ValueError("--out must name a folder for the tables and figures of more than one network or way")
    if out is None:
        run = runs[0].resolve() if runs[0].name in ("", "..") else runs[0]
        out = run.with_name(run.name + ending)
    if one:
        check_new(out, hint)
    elif out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file, and --out must name a folder for tables and figures")
    return out
