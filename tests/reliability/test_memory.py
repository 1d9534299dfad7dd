"""Files that lie about sizes are refused without taking memory; measured in processes of their own.

The highest memory of a process never falls, so that what an earlier test took would hide what a later one takes.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tying_agents.running.runner import run

from tests.conftest import TINY
from tests.reliability.attacks import absurd_header, absurd_tensor, deep_json, reseal, zip_bomb
from tests.reliability.conftest import Counts
from tests.reliability.runs import Watcher, interrupt, small
from tests.started import code
from tying_env.env import LayerTyingEnv
from tying_env.files import to_json
from tying_env.runs import save_network
from tying_env.runs.manifest import sha256
from tying_env.runs.network_file import _seal

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures as Linux does")

# Does the same first with a good one, then prints what it said of the other, and MiB that this took beyond.
CODE = """
import sys
from pathlib import Path
from tying_agents.running.runner import resume
from tests.reliability.runs import Watcher
from tying_env.runs import load_network

def memory(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) // 1024

def read(path):
    if (path / "config.json").exists():
        resume(path, [Watcher()])
    else:
        load_network(path / "network")

good, other = map(Path, sys.argv[1:])
read(good)
Path("/proc/self/clear_refs").write_text("5")  # the highest memory from here on
before = memory("VmRSS")
try:
    read(other)
    print("read")
except ValueError as error:
    print(str(error).replace(chr(10), " "))
print(memory("VmHWM") - before)
"""


def measured(good: Path, other: Path) -> tuple[str, int]:
    process = code(CODE, good, other)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    said, mebibytes = out.splitlines()
    return said, int(mebibytes)


def network(folder: Path, tiny: dict[str, Any], **settings: Any) -> Path:
    env = LayerTyingEnv(**tiny | settings)
    env.reset(seed=0, options={"tying": [0] * env.config.n_layer})
    folder.mkdir()
    save_network(folder / "network", env.trainer, env.config, env.workload.sizes)
    return folder


def reworked(source: Path, folder: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Path:
    """Write a network file that somebody changed who knows how it is sealed."""
    with safe_open(source / "network", "pt") as file:
        about = json.loads(file.metadata()["tying_env"])
    tensors = load_file(source / "network")
    del about["sha256"]
    change(about, tensors)
    folder.mkdir()
    sealed = about | {"sha256": _seal(about, tensors)}
    save_file(tensors, folder / "network", metadata={"tying_env": to_json(sealed)})
    return folder


def all_tied(n_layer: int) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], object]:
    def change(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        about["config"]["n_layer"] = n_layer
        about["tying"] = about["sources"] = [0] * n_layer

    return change


def without(name: str, key: str, **sizes: Any) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], object]:
    return lambda about, tensors: (about[key].update(sizes), tensors.pop(name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("transformer.wte.weight", "sizes", vocab_size=50_000_000), "lacks the tensor"),
        (without("transformer.wpe.weight", "config", seq_len=20_000_000), "lacks the tensor"),
        (without("transformer.h.0.mlp.c_fc.weight", "config"), "lacks the tensor"),
    ],
)
def test_a_network_file_that_lacks_what_it_asks_for_takes_no_memory(
    tiny: dict[str, Any], tmp_path: Path, change: Any, said: str, counts: Counts
) -> None:
    good = network(tmp_path / "good", tiny)
    message, mebibytes = measured(good, reworked(good, tmp_path / "other", change))
    assert said in message
    assert mebibytes < 100
    counts.add(f"network file: {message[-60:]}", 1, f"{mebibytes} MiB taken")


def test_a_tied_network_holds_every_weight_once_while_it_is_read(
    tiny: dict[str, Any], tmp_path: Path, counts: Counts
) -> None:
    good = network(tmp_path / "good", tiny, n_embd=512, n_layer=2)  # a layer has 12.6 MB
    other = reworked(good, tmp_path / "other", all_tied(300))
    message, mebibytes = measured(good, other)
    assert message == "read"
    assert mebibytes < 300  # all layers have 3,600
    counts.add("tied layers in a network file", 300, f"{mebibytes} MiB taken, all layers have 3,600")


@pytest.fixture(scope="module")
def stopped(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at its third decision."""
    path = tmp_path_factory.mktemp("memory") / "stopped"
    run(small(TINY | {"dataset": str(text_folder)}, path), [Watcher(lambda n: interrupt() if n == 3 else None)])
    return path


@pytest.fixture
def two(stopped: Path, tmp_path: Path) -> None:
    """Two copies of it, one to be changed: tmp_path / "good" and "other"."""
    for name in ("good", "other"):
        shutil.copytree(stopped, tmp_path / name)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("change", [{"n_embd": 32_768}, {"n_layer": 3000}, {"n_embd": 65_536, "n_head": 1}])
def test_a_run_whose_settings_ask_for_more_than_its_checkpoint_has_takes_no_memory(
    tmp_path: Path, change: dict[str, int], counts: Counts
) -> None:
    path = tmp_path / "other"
    about = json.loads((path / "config.json").read_text())
    about["env"] |= change
    (path / "config.json").write_text(json.dumps(about))
    for folder in (path / "checkpoints").iterdir():
        reseal(folder, lambda manifest: manifest.update(config=sha256(path / "config.json")))
    message, mebibytes = measured(tmp_path / "good", path)
    assert "does not fit" in message
    assert mebibytes < 250  # 3,000 layers without weights are modules still
    counts.add(f"config.json that asks for {change}", 1, f"{mebibytes} MiB taken")


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("attack", [zip_bomb, absurd_tensor, absurd_header, deep_json])
def test_a_hostile_checkpoint_takes_no_memory(tmp_path: Path, attack: Callable[[Path], None], counts: Counts) -> None:
    for folder in (tmp_path / "other" / "checkpoints").iterdir():
        attack(folder)
    message, mebibytes = measured(tmp_path / "good", tmp_path / "other")
    assert "no checkpoint" in message
    assert mebibytes < 100  # unpacked the bomb has 128
    counts.add(f"checkpoint: {attack.__name__}", 1, f"{mebibytes} MiB taken")
