"""Files of a checkpoint changed as somebody would who knows how they are sealed."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tying_env.files import to_json
from tying_env.runs.manifest import sealed


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows how it is sealed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    change(manifest)
    (folder / "manifest.json").write_text(sealed(manifest))


def redescribe(folder: Path, name: str) -> None:
    """Let a manifest say of a file what it is now."""
    import hashlib

    data = (folder / name).read_bytes()
    described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(folder, lambda manifest: manifest["files"].update({name: described}))


class Alarm:
    """What a pickle can do: it runs when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path(os.environ["ALARM"]), "ran"))


def pickled(folder: Path) -> None:
    (folder / "tensors.safetensors").write_bytes(pickle.dumps(Alarm()))
    redescribe(folder, "tensors.safetensors")


def torch_saved(folder: Path) -> None:
    torch.save({"x": Alarm()}, folder / "tensors.safetensors")
    redescribe(folder, "tensors.safetensors")


def zip_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tensors.safetensors", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        bomb.writestr("data", b"\0" * (1 << 27))
    redescribe(folder, "tensors.safetensors")


def climbing_path(folder: Path) -> None:
    reseal(folder, lambda m: m["files"].update({"../../../../etc/passwd": m["files"]["state.json"]}))


def climbing_log(folder: Path) -> None:
    shutil.copy(folder.parents[1] / "metrics.jsonl", folder.parents[2])  # what it leads to is as it says
    reseal(folder, lambda m: m["logs"].update({"../metrics.jsonl": m["logs"]["metrics.jsonl"]}))


def absurd_tensor(folder: Path) -> None:
    header = {"env/trainer/dropout": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}}
    text = json.dumps(header).encode()
    (folder / "tensors.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    redescribe(folder, "tensors.safetensors")


def absurd_header(folder: Path) -> None:
    (folder / "tensors.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    redescribe(folder, "tensors.safetensors")


def deep_json(folder: Path) -> None:
    (folder / "state.json").write_text("[" * 200_000 + "]" * 200_000)
    redescribe(folder, "state.json")


def retensored(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "tensors.safetensors")
        change(tensors)
        save_file(tensors, folder / "tensors.safetensors")
        redescribe(folder, "tensors.safetensors")

    return damage


def restated(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        change(state)
        (folder / "state.json").write_text(to_json(state))
        redescribe(folder, "state.json")

    return damage


WEIGHT = "env/trainer/weights/transformer.wte.weight"
MOMENT = "env/trainer/optimizer/transformer.wte.weight/exp_avg"
