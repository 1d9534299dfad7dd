"""A packed network: at most so many bytes, every weight once, and back it is an ordinary network."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from tests.compressing.conftest import MakeRun
from tests.own_networks import TEXT
from tying_env.compression import load_packed, pack_network
from tying_env.compression import packing as packing_module
from tying_env.compression.packed_file import read_file
from tying_env.compression.rounding import restored, rounded
from tying_env.compression.units import layers_named, units_of
from tying_env.export import export_tied, load_export
from tying_env.primary.owned import owned_tensors
from tying_env.runs import LoadedRun, load_run


def test_a_group_is_one_unit_and_each_matrix_outside_the_blocks_another(sandwich: LoadedRun) -> None:
    units = units_of(sandwich.saved.network, sandwich.saved.tied)
    assert {unit.name: unit.layers for unit in units} == {
        "transformer.wte.weight": (),
        "transformer.wpe.weight": (),
        "layer 0": (0,),
        "layers 1-2": (1, 2),
        "layer 3": (3,),
    }
    assert {len(unit.matrices) for unit in units if unit.layers} == {4}
    assert layers_named([5, 0, 2, 3, 4]) == "layers 0, 2-5"


def expected_state(loaded: LoadedRun, bits: Any) -> dict[str, torch.Tensor]:
    """Return what a file holds, weight by weight and without units: matrices rounded, other weights in 16 bits."""
    expected = {}
    model = loaded.model
    names = {name for name, _ in model.named_parameters()}
    for name, tensor in owned_tensors(loaded.saved.network, loaded.saved.tied).items():
        module = model.get_submodule(name.rpartition(".")[0])
        if name in names and tensor.ndim >= 2:
            whole = tensor.ndim == 2 or isinstance(module, torch.nn.Conv2d)
            rows = tensor.T if isinstance(module, Conv1D) else tensor.flatten(1) if whole else tensor.flatten(0, -2)
            values = restored(rounded(rows, bits))
            tensor = (values.T if isinstance(module, Conv1D) else values.view(tensor.shape)).to(tensor.dtype)
        elif name in names and tensor.element_size() > 2:
            tensor = tensor.half().to(tensor.dtype)
        expected[name] = tensor
    return expected


SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "leader's gradient": {"gradient": "leader"},
    "matrices tied": {"tied_parameters": "matrices"},
    "bfloat16": {"dtype": "bfloat16"},
    "scaled branches": {"residual_scale": "sqrt"},
    "deltas": {"delta_rank": 2},
    "llama": {"model": "llama", "n_kv_head": 1},
    "bert": {"model": "bert"},
    "vit": {"model": "vit", "dataset": "digits", "patch_size": 4},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_comes_out_of_the_file_is_the_network_rounded(tmp_path: Path, make_run: MakeRun, kind: str) -> None:
    loaded = make_run(**SETTINGS[kind])
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    random = torch.random.get_rng_state()
    packed = pack_network(loaded, tmp_path / "deep" / "net.packed", bits=6)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert packed.size == packed.path.stat().st_size
    model: Any = load_packed(packed.path)
    assert type(model) is type(loaded.model) and not model.training
    found, expected = dict(model.named_parameters()) | dict(model.named_buffers()), expected_state(loaded, 6)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
    # Followers compute on their leader's memory, as they did.
    addresses = {name: p.data_ptr() for name, p in loaded.model.named_parameters(remove_duplicate=False)}
    again = {name: p.data_ptr() for name, p in model.named_parameters(remove_duplicate=False)}
    for one, other in itertools.combinations(addresses, 2):
        assert (addresses[one] == addresses[other]) == (again[one] == again[other]), (one, other)
    with torch.no_grad():
        for name, tensor in expected.items():
            dict(loaded.model.named_parameters()).get(name, torch.empty_like(tensor)).copy_(tensor)
    workload = loaded.open_workload()
    device = torch.device("cpu")
    assert workload.evaluate(model, "test", 8, device) == workload.evaluate(loaded.model, "test", 8, device)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it
def test_a_packed_model_generates_and_adapters_are_not_merged_into_what_layers_share(
    tmp_path: Path, sandwich: LoadedRun
) -> None:
    model: Any = load_packed(pack_network(sandwich, tmp_path / "net", bits=8).path)
    ids = torch.tensor([[65, 66]])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert made.shape == (1, 5)
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["c_fc"], fan_in_fan_out=True))
    with pytest.raises(ValueError, match=r"'mlp\.c_fc\.weight' is shared by blocks"):
        adapted.merge_and_unload()


def test_a_network_of_the_users_own_is_packed_and_opened_by_who_names_its_code(
    tmp_path: Path, make_run: MakeRun
) -> None:
    (tmp_path / "net.py").write_text(TEXT)
    model = f"{tmp_path}/net.py:make_network"
    loaded = make_run("albert", model=model, n_layer=3)
    path = pack_network(loaded, tmp_path / "net.packed", bits=4).path
    opened = load_packed(path, model=model)
    assert type(opened).__name__ == "Net"
    found = dict(opened.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in expected_state(loaded, 4).items())
    with pytest.raises(ValueError, match="a file never makes code run"):
        load_packed(path)
    (tmp_path / "other.py").write_text(TEXT.replace("Tanh", "ReLU"))
    with pytest.raises(ValueError, match="sha256"):
        load_packed(path, model=f"{tmp_path}/other.py:make_network")
    assert str(tmp_path) not in str(read_file(path).about)


def test_an_exported_network_is_packed_as_its_run_is(tmp_path: Path, sandwich: LoadedRun) -> None:
    exported = load_export(export_tied(sandwich.path, tmp_path / "out"))
    pack_network(exported, tmp_path / "one", bits=6)
    pack_network(sandwich, tmp_path / "two", bits=6)
    one, two = (load_packed(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in two)
    with pytest.raises(ValueError, match=r"model= is for a network of code of the user's own"):
        load_packed(tmp_path / "one", model="x.py:f")


def test_the_file_fits_and_nothing_smaller_than_possible_is_promised(tmp_path: Path, sandwich: LoadedRun) -> None:
    with pytest.raises(
        ValueError, match=r"max_bytes is 100, and the smallest file possible .* takes ([\d,]+)"
    ) as caught:
        pack_network(sandwich, tmp_path / "no", 100)
    least = int(str(caught.value).rpartition(" ")[2].replace(",", ""))
    most = pack_network(sandwich, tmp_path / "most", windows=8).size
    sizes = []
    for max_bytes in (least, least + 1, least + 40, (least + most) // 2, most - 1, most):
        packed = pack_network(sandwich, tmp_path / str(max_bytes), max_bytes, windows=8)
        assert packed.size == packed.path.stat().st_size <= max_bytes
        load_packed(packed.path)
        sizes.append(packed.size)
    assert sizes == sorted(sizes) and sizes[0] == least and sizes[-1] == most
    assert {part.bits for part in packed.units} == {8}
    with pytest.raises(ValueError, match=f"the smallest file possible of this network takes {least:,}"):
        pack_network(sandwich, tmp_path / "no", least - 1)
    with pytest.raises(ValueError, match="and a file in 8 bits of this network takes"):
        pack_network(sandwich, tmp_path / "no", least, bits=8)
    assert not (tmp_path / "no").exists()


def test_the_damage_of_a_unit_is_the_rise_of_the_loss_with_it_alone_rounded(
    tmp_path: Path, sandwich: LoadedRun
) -> None:
    parts = {part.unit.name: part for part in pack_network(sandwich, tmp_path / "net", windows=8).units}
    choice = parts["layers 1-2"].choices[4]
    workload, device = sandwich.open_workload(), torch.device("cpu")
    before = workload.evaluate(sandwich.model, "validation", 8, device).mean_loss
    changed = load_run(sandwich.path)
    block = changed.model.transformer.h[1]  # type: ignore[union-attr, index]
    with torch.no_grad():
        for module in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):  # type: ignore[union-attr]
            module.weight.copy_(restored(rounded(module.weight.T, 4)).T)  # type: ignore[union-attr, operator, arg-type]
    after = workload.evaluate(changed.model, "validation", 8, device).mean_loss
    assert choice.rise == pytest.approx(after - before, abs=1e-9) and after != before


def test_what_cannot_be_packed_is_refused_and_nothing_is_left(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = make_run()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_bytes": 0}, "max_bytes must be at least 1, got 0"),
        ({"bits": 5}, "bits must be one of 8, 6, 4, got 5"),
        ({"windows": -1}, "windows must be at least 0"),
    ]
    for settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            pack_network(loaded, tmp_path / "out", **settings)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already and is left as it is; choose another file"):
        pack_network(loaded, tmp_path / "there", bits=8)

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packing_module, "opened", full)
        with pytest.raises(OSError, match="No space left"):
            pack_network(loaded, tmp_path / "out", bits=8)
    with torch.no_grad():
        next(iter(loaded.model.parameters()))[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"'transformer\.wte\.weight' has values that are not finite"):
        pack_network(loaded, tmp_path / "out", bits=8)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "mine"
