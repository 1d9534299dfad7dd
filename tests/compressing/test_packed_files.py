"""The file of a packed network: how weights are rounded and coded, who gets which bits, what is refused."""

import hashlib
import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from tying_env.compression import load_packed, pack_network
from tying_env.compression import packing as packing_module
from tying_env.compression.budget import Choice, allocate
from tying_env.compression.coding import code_plain, code_unit, decode_plain, decode_unit, expand, squeeze
from tying_env.compression.packed_file import MAGIC
from tying_env.compression.rounding import BITS, restored, rounded
from tying_env.compression.units import Matrix, Unit
from tying_env.primary.rows import as_rows, from_rows, layout_of, rows_shape
from tying_env.runs import LoadedRun


def test_a_row_is_rounded_to_the_nearest_of_its_levels() -> None:
    rows = torch.tensor([[7.0, -3.4, 0.6, 0.0], [0.0, 0.0, 0.0, 0.0], [-0.25, 0.12, 0.1, 0.02]])
    matrix = rounded(rows, 4)
    assert matrix.codes.tolist() == [[7, -3, 1, 0], [0, 0, 0, 0], [-7, 3, 3, 1]]
    assert matrix.scales.tolist() == [1.0, 0.0, torch.tensor(0.25 / 7).bfloat16().item()]
    assert restored(matrix)[0].tolist() == [7.0, -3.0, 1.0, 0.0]


@pytest.mark.parametrize(("bits", "highest"), [(8, 127), (6, 31), (4, 7)])
def test_no_weight_moves_by_more_than_half_a_level_beside_what_its_scale_loses(bits: Any, highest: int) -> None:
    rows = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 3, 50)[:, None]
    matrix = rounded(rows, bits)
    assert matrix.codes.abs().amax(1).tolist() == [highest] * 50
    scales = matrix.scales.float()[:, None]
    clipped = rows.abs().amax(1, keepdim=True) * 2**-8  # bfloat16 rounds a scale by at most 2^-9 of it
    assert ((restored(matrix) - rows).abs() <= scales / 2 * (1 + 1e-6) + clipped).all()


def test_the_rows_of_a_weight_are_the_inputs_of_its_outputs() -> None:
    linear, conv1d, conv = torch.nn.Linear(3, 5), Conv1D(5, 3), torch.nn.Conv2d(2, 6, 3)
    experts = torch.nn.Module()
    experts.weight = torch.nn.Parameter(torch.randn(2, 4, 3))
    for module, rows in ((linear, (5, 3)), (conv1d, (5, 3)), (conv, (6, 18)), (experts, (8, 3))):
        weight: Any = module.weight.detach()  # type: ignore[union-attr]
        layout = layout_of(module, weight)
        assert rows_shape(tuple(weight.shape), layout) == tuple(as_rows(weight, layout).shape) == rows
        assert torch.equal(from_rows(as_rows(weight, layout), tuple(weight.shape), layout), weight)
    inputs = torch.eye(3)
    for module in (linear, conv1d):  # an output is a row times the input
        outputs = module(inputs) - module.bias
        assert torch.allclose(as_rows(module.weight, layout_of(module, module.weight)), outputs.T, atol=1e-6)


def test_what_is_coded_is_decoded() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes: list[Any] = [((6, 5), "first"), ((7, 4), "column"), ((2, 3, 4), "last")]
    matrices = [Matrix(str(n), torch.randn(s, generator=generator), how) for n, (s, how) in enumerate(shapes)]
    for bits in BITS:
        decoded = decode_unit(code_unit(Unit("u", tuple(matrices), ()), bits), shapes)
        for found, matrix in zip(decoded, matrices, strict=True):
            rows = restored(rounded(as_rows(matrix.weight, matrix.layout), bits))
            assert torch.equal(found, from_rows(rows, tuple(matrix.weight.shape), matrix.layout))
    plain = [torch.randn(3, generator=generator).half(), torch.tensor(True), torch.arange(4).view(2, 2), torch.empty(0)]
    again = decode_plain(code_plain(plain), [(tuple(t.shape), t.dtype) for t in plain])
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(again, plain, strict=True))


def test_no_more_is_decoded_than_was_said() -> None:
    bomb = squeeze(bytes(10**7))
    assert len(bomb) < 1000
    with pytest.raises(ValueError, match="are not of 1,000 bytes"):
        expand(bomb, 1000)
    for damaged in (bomb[:-2], bomb + b"x", b"\xff" * 20):
        with pytest.raises(ValueError, match="coded bytes"):
            expand(damaged, 10**7)


def test_bytes_go_where_they_help_most_and_what_is_left_to_more_bits() -> None:
    costly = {8: Choice(90, 0.0), 6: Choice(70, 0.1), 4: Choice(50, 0.5)}
    robust = {8: Choice(90, 0.02), 6: Choice(70, 0.01), 4: Choice(50, 0.03)}  # more at 8 bits than at 6 is chance
    choices: list[Any] = [costly, robust]
    chosen = {budget: allocate(choices, budget) for budget in (100, 119, 120, 140, 159, 160, 180, 10**9)}
    assert list(chosen.values()) == [[4, 4], [4, 4], [6, 4], [8, 4], [8, 4], [8, 6], [8, 8], [8, 8]]
    with pytest.raises(ValueError, match="take 100 bytes, more than 99"):
        allocate(choices, 99)


def test_no_allocation_of_three_units_is_far_from_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        drops = rng.exponential(1.0, (3, 2)).cumsum(1)
        choices: list[Any] = [{8: Choice(90, 0.0), 6: Choice(70, d[0]), 4: Choice(50, d[1])} for d in drops]
        for budget in (170, 200, 230, 250):
            of = {
                bits: sum(own[each].rise for own, each in zip(choices, bits, strict=True))
                for bits in itertools.product(BITS, repeat=3)
                if sum(own[each].size for own, each in zip(choices, bits, strict=True)) <= budget
            }
            assert of[tuple(allocate(choices, budget))] <= min(of.values()) + drops.max()  # type: ignore[index]


def test_damaged_files_are_refused_by_name(tmp_path: Path, sandwich: LoadedRun) -> None:
    good = pack_network(sandwich, tmp_path / "good", bits=4).path.read_bytes()
    bad = tmp_path / "bad"

    def refused(content: bytes, message: str) -> None:
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            load_packed(bad)
        assert str(bad) in str(caught.value)

    with pytest.raises(FileNotFoundError, match="there is no packed network"):
        load_packed(bad)
    for place in range(50, len(good), len(good) // 20):
        refused(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], "sha256 differs")
    for length in (9, 40, 60, len(good) - 1):
        refused(good[:length], "is cut short")
    refused(good + b"x", "has something behind its end")
    refused(b"", "is not a packed network")
    refused(b"PK\x03\x04" + good, "is not a packed network")
    refused(MAGIC + struct.pack("<H", 2) + good[10:], "of version 2 of the format, this package reads version 1")


def test_a_file_that_says_what_is_not_so_is_refused_though_its_hash_is_right(
    tmp_path: Path, sandwich: LoadedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = packing_module.make_file

    def lying(change: Callable[[dict[str, Any]], Any]) -> bytes:
        """Pack with another header; what is checked as it is written is let pass."""

        def made(about: dict[str, Any], *rest: Any) -> bytes:
            changed: dict[str, Any] = {**about, "config": dict(about["config"]), "sizes": dict(about["sizes"])}
            change(changed)
            return true(changed, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(packing_module, "make_file", made)
            patch.setattr(packing_module, "opened", lambda *_: None)
            path = pack_network(sandwich, tmp_path / "lie", bits=4).path
        content = path.read_bytes()
        path.unlink()
        return content

    cases: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
        (lambda about: about.update(sources=[0, 1, 2, 3]), r"asks? for 'transformer.h.2"),
        (lambda about: about.update(sources=[0, 0, 5, 3]), "its description of itself does not hold"),
        (lambda about: about["sizes"].update(vocab_size=10**12), "is damaged"),
        (lambda about: about["config"].update(n_embd=32), "of shape"),
        (lambda about: about.pop("config"), "its description of itself does not hold"),
    ]
    for change, message in cases:
        (tmp_path / "bad").write_bytes(lying(change))
        with pytest.raises(ValueError, match=message):
            load_packed(tmp_path / "bad")
    good = pack_network(sandwich, tmp_path / "good", bits=4).path.read_bytes()
    for rest in (b"", bytes(30), struct.pack("<II", 5, 2**31) + bytes(30), good[50:-20]):
        head = struct.pack("<8sHQ32s", MAGIC, 1, len(rest), hashlib.sha256(rest).digest())
        (tmp_path / "bad").write_bytes(head + rest)
        with pytest.raises(ValueError, match="bad is damaged"):
            load_packed(tmp_path / "bad")
