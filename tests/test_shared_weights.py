"""Adapters on weights that layers share: those that would change the shared weight are refused by name."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft.tuners.lora.config import CordaConfig, KasaConfig
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import run
from tying_agents.settings import GroupsConfig

from tests.adapters import adapted
from tests.conftest import TINY
from tests.families import tokens
from tests.models import TRAIN
from tying_env import EnvConfig
from tying_env.compression import load_packed, pack_network
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_export, load_tied
from tying_env.runs import load_run

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it

IDS = torch.arange(8)[None]
SHARED = r"'self_attn\.q_proj\.weight' is shared by blocks 0 and 1, "


GRADIENTS = ("shared", "leader")


@pytest.fixture(scope="module")
def run_folders(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> dict[str, Path]:
    """Blocks 0 and 1 share weights, 2 and 3 do; with `leader` by Parameters of their own on one memory."""
    folders = {gradient: tmp_path_factory.mktemp("run") / "fixed" for gradient in GRADIENTS}
    for gradient, folder in folders.items():
        tiny: dict[str, Any] = TINY | {"dataset": str(text_folder), "model": "llama", "gradient": gradient}
        config = EnvConfig(**tiny | {"total_steps": 4})
        run(RunConfig("sequence", 1, run_dir=folder, env=config, test_windows=4, controller=GroupsConfig(groups=2)))
    return folders


@pytest.fixture(params=GRADIENTS)
def run_folder(request: pytest.FixtureRequest, run_folders: dict[str, Path]) -> Path:
    return run_folders[request.param]


def settings(**options: Any) -> Any:
    return peft.LoraConfig(r=2, target_modules=["q_proj"], **options)


def unpickled(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


LOADED: dict[str, Callable[[Path, Path], Any]] = {
    "load_run": lambda folder, _: load_run(folder).model,
    "load_tied": lambda folder, new: load_tied(export_tied(folder, new / "out")),
    "load_export": lambda folder, new: load_export(export_tied(folder, new / "out")).model,
    "load_packed": lambda folder, new: load_packed(pack_network(load_run(folder), new / "packed", bits=8).path),
}
COPIED: dict[str, Callable[[Any], Any]] = {
    "itself": lambda model: model,
    "copied": copy.deepcopy,
    "pickled": lambda model: pickle.loads(pickle.dumps(model)),
    "saved whole": unpickled,
}


@pytest.mark.parametrize("how", COPIED)
@pytest.mark.parametrize("loaded", LOADED)
def test_merging_into_a_shared_weight_is_refused(loaded: str, how: str, run_folder: Path, tmp_path: Path) -> None:
    model = COPIED[how](LOADED[loaded](run_folder, tmp_path))
    one, two, three = (model.model.layers[i].self_attn.q_proj.weight for i in (0, 1, 2))
    assert two.data_ptr() != three.data_ptr()
    with_adapters = peft.get_peft_model(model, settings(init_lora_weights=False)).eval()
    expected = with_adapters(input_ids=IDS).logits
    if how == "copied" and one.data_ptr() != two.data_ptr():  # in a copy, Parameters on one memory get one each
        torch.testing.assert_close(with_adapters.merge_and_unload()(input_ids=IDS).logits, expected)
        return
    for merging in ("merge_adapter", "merge_and_unload"):
        with pytest.raises(ValueError, match=SHARED + r"and merging would add .*tied=False"):
            getattr(COPIED[how](with_adapters), merging)()
    assert torch.equal(with_adapters(input_ids=IDS).logits, expected)


def test_a_pickle_is_refused_in_a_process_that_reads_nothing_else(run_folders: Any, tmp_path: Path) -> None:
    for gradient, folder in run_folders.items():
        torch.save(load_run(folder).model, tmp_path / f"{gradient} bare")
        torch.save(peft.get_peft_model(load_run(folder).model, settings()), tmp_path / f"{gradient} adapted")
    # It imports torch and PEFT once, and nothing of ours: either run's pickles are read in a copy of it.
    code = (
        "import os, sys, torch, peft\n"
        "assert 'tying_env' not in sys.modules\n"
        "settings = peft.LoraConfig(r=2, target_modules=['q_proj'])\n"
        "for gradient in ('shared', 'leader'):\n"
        "    if os.fork():\n"
        "        assert os.wait()[1] == 0\n"
        "        continue\n"
        "    for name in (f'{gradient} bare', f'{gradient} adapted'):\n"
        "        model = torch.load(f'{sys.argv[1]}/{name}', weights_only=False)\n"
        "        model = peft.get_peft_model(model, settings) if 'bare' in name else model\n"
        "        try: model.merge_adapter()\n"
        "        except ValueError as error: print(name, error)\n"
        "    break\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    for name in (f"{gradient} {kind}" for gradient in GRADIENTS for kind in ("bare", "adapted")):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(name))
        assert "is shared by blocks 0 and 1, and merging would add" in line


def test_once_layers_have_weights_of_their_own_adapters_are_merged(run_folder: Path) -> None:
    loaded = load_run(run_folder)
    with_adapters = peft.get_peft_model(loaded.model, settings(init_lora_weights=False)).eval()
    expected = with_adapters(input_ids=IDS).logits
    loaded.saved.tied.change(np.arange(4))
    torch.testing.assert_close(with_adapters.merge_and_unload()(input_ids=IDS).logits, expected)


def test_adapters_that_were_there_before_a_tying_of_what_is_below_them_are_not_merged() -> None:
    env = LayerTyingEnv(model=lambda: adapted("lora, everything"), batches=lambda rng: tokens(rng), **TRAIN)
    env.reset(seed=0)
    env.step(np.array([0, 0, 2, 3]))
    model: Any = env.trainer.network.model
    with pytest.raises(ValueError, match=r"base_layer\.weight' is shared by blocks 0 and 1, and merging would add"):
        model.merge_adapter()
    env.step(np.array([0, 1, 2, 3]))
    ids = torch.arange(12)[None]
    expected = model.eval()(ids).logits
    model.merge_adapter()
    torch.testing.assert_close(model(ids).logits, expected)


def test_tied_adapters_over_weights_of_their_own_are_merged() -> None:
    env = LayerTyingEnv(model=lambda: adapted("lora"), batches=lambda rng: tokens(rng), **TRAIN)
    env.reset(seed=0)
    env.step(np.array([0, 0, 0, 3]))
    model: Any = env.trainer.network.model
    ids = torch.arange(12)[None]
    expected = model.eval()(ids).logits
    model.merge_adapter()
    torch.testing.assert_close(model(ids).logits, expected)


def corda(model: Any) -> None:
    """Leave behind what `preprocess_corda` does: it needs data, and this only its result."""
    for block in model.model.layers:
        u, s, v = torch.linalg.svd(block.self_attn.q_proj.weight.detach().T, full_matrices=False)
        block.self_attn.q_proj.eigens = SimpleNamespace(U_WC=u[:, :2], S_WC=s[:2].clone(), V_WC=v[:2].T)


def lora_ga(model: Any) -> None:
    for block in model.model.layers:
        block.self_attn.q_proj._peft_loraga_grad = torch.ones_like(block.self_attn.q_proj.weight)


# how an adapter begins -> what it needs, and whether the weight below changes
BEGUN: dict[str, tuple[dict[str, Any], Callable[[Any], None] | None, bool]] = {
    "pissa": ({}, None, True),
    "pissa_niter_4": ({}, None, True),
    "olora": ({}, None, True),
    "corda": ({"corda_config": CordaConfig()}, corda, True),
    "lora_ga": ({"lora_ga_config": peft.LoraGAConfig()}, lora_ga, True),
    "gaussian": ({}, None, False),
    "eva": ({"eva_config": peft.EvaConfig()}, None, False),
    "orthogonal": ({}, None, False),
}


@pytest.mark.filterwarnings("ignore:lora with eva initialization used:UserWarning")
@pytest.mark.parametrize("kind", BEGUN)
def test_an_adapter_that_begins_by_changing_a_shared_weight_is_refused(
    kind: str, run_folder: Path, tmp_path: Path
) -> None:
    options, prepare, changes = BEGUN[kind]
    folder = export_tied(run_folder, tmp_path / "out")
    expected = load_tied(folder)(input_ids=IDS).logits
    for tied in (True, False):
        model: Any = load_tied(folder, tied=tied)
        before = [block.self_attn.q_proj.weight.detach().clone() for block in model.model.layers]
        if prepare is not None:
            prepare(model)
        if tied and changes:
            with pytest.raises(ValueError, match=SHARED + f"and init_lora_weights='{kind}' begins by changing"):
                peft.get_peft_model(model, settings(init_lora_weights=kind, **options))
            weights = [
                block.self_attn.q_proj.base_layer.weight
                if hasattr(block.self_attn.q_proj, "base_layer")
                else block.self_attn.q_proj.weight
                for block in model.model.layers
            ]
            assert all(map(torch.equal, weights, before))
            assert weights[0].data_ptr() == weights[1].data_ptr()
            continue
        with_adapters = peft.get_peft_model(model, settings(init_lora_weights=kind, **options)).eval()
        if kind != "orthogonal":  # which begins with an update that is not zero
            torch.testing.assert_close(with_adapters(input_ids=IDS).logits, expected, atol=2e-5, rtol=1e-4)


def test_kasa_which_cuts_the_weight_below_it_is_refused(run_folder: Path) -> None:
    model: Any = load_run(run_folder).model
    expected = model(input_ids=IDS).logits
    with pytest.raises(ValueError, match=SHARED + "and KaSA begins by changing the weight below each adapter"):
        peft.get_peft_model(model, settings(kasa_config=KasaConfig()))
    assert torch.equal(model(input_ids=IDS).logits, expected)


def test_a_second_adapter_that_changes_a_shared_weight_is_refused(run_folder: Path) -> None:
    model: Any = load_run(run_folder).model
    with_adapters = peft.get_peft_model(model, settings()).eval()
    expected = with_adapters(input_ids=IDS).logits
    with pytest.raises(ValueError, match=SHARED + "and init_lora_weights='pissa' begins"):
        with_adapters.add_adapter("second", settings(init_lora_weights="pissa"))
    assert torch.equal(with_adapters(input_ids=IDS).logits, expected)
