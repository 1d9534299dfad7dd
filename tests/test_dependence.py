"""Input dependence: the share of the logits' mean square that varies with position, against its definition."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import T, V, make_model, own
from tying_env.env import LayerTyingEnv
from tying_env.primary import dependence, own_tasks, tasks
from tying_env.primary.collapse import validations


def plain_share(logits: torch.Tensor) -> float:
    """Return the share by its definition, in double precision."""
    x = logits.double() - logits.double().mean(1, keepdim=True)
    return float((x - x.mean(0)).square().sum() / x.square().sum())


def share_of(logits: torch.Tensor) -> float | None:
    return dependence.input_dependence(dependence.spread_of(logits))


def test_the_share_is_1_without_a_constant_part_0_for_a_constant_and_known_in_between() -> None:
    assert share_of(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])) == 1
    assert share_of(torch.tensor([[1.0, 5.0, 2.0]]).expand(4, -1)) == 0
    # Centred: (1, -1), (3, -3); the mean is (2, -2), so 4 * 1 of 2 * 1 + 2 * 9 varies.
    assert share_of(torch.tensor([[2.0, 0.0], [6.0, 0.0]])) == pytest.approx(4 / 20)


def test_what_is_added_to_all_logits_of_a_position_changes_nothing() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert share_of(logits + 100 * torch.arange(6.0)[:, None]) == pytest.approx(share_of(logits), rel=1e-9)


def test_a_share_of_a_billionth_is_still_right_in_float32() -> None:
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0)) + torch.zeros(50, 8)
    logits += 1e-4 * torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    expected = plain_share(logits)
    assert expected < 1e-7
    assert share_of(logits) == pytest.approx(expected, rel=1e-3)


def test_batches_of_any_size_come_to_the_share_of_all_their_positions() -> None:
    logits = torch.randn(30, 7, generator=torch.Generator().manual_seed(0)) + torch.arange(7.0)
    spread = None
    for part in logits.split([1, 20, 9]):
        spread = dependence.merged(spread, dependence.spread_of(part))
    assert dependence.input_dependence(spread) == pytest.approx(plain_share(logits), rel=1e-6)


def test_there_is_no_share_of_one_position_of_equal_logits_or_of_numbers_that_are_not_finite() -> None:
    assert dependence.input_dependence(None) is None
    for logits in (torch.tensor([[1.0, 2.0]]), torch.ones(3, 2), torch.tensor([[1.0, math.nan], [1.0, 2.0]])):
        assert share_of(logits) is None


def test_positions_are_spread_over_a_batch_with_no_more_logits_than_there_may_be() -> None:
    assert dependence.spaced(torch.arange(5), 256).tolist() == [0, 1, 2, 3, 4]
    places = dependence.spaced(torch.arange(1024), 50_257).tolist()
    assert len(places) * 50_257 <= dependence.MOST_LOGITS < (len(places) + 1) * 50_257
    assert (places[0], len(set(places))) == (0, len(places))
    assert 1000 < places[-1] < 1024


KINDS: dict[str, dict[str, Any]] = {"gpt2": {}, "llama": {"model": "llama"}, "bert": {"model": "bert"}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_models_share_is_that_of_its_full_logits(tiny: dict[str, Any], kind: str) -> None:
    env = LayerTyingEnv(**tiny | KINDS[kind] | {"batch_size": 8})
    env.reset(seed=0)
    env.trainer.train(3)
    model: Any = env.trainer.network.model.eval()
    windows: Any = env.windows("validation", 8)
    with torch.no_grad():
        if kind != "bert":
            logits = model(torch.from_numpy(windows[:, :-1].astype(np.int64))).logits.flatten(0, 1)
        else:
            batch = tasks.to_device(windows, torch.device("cpu"))
            every = model(input_ids=batch["input_ids"]).logits  # (B, T, V + 1)
            logits = torch.cat([own[places] for own, places in zip(every, batch["positions"], strict=True)])
    assert env.evaluate("validation", 8).input_dependence == pytest.approx(plain_share(logits), rel=1e-4)


def test_a_vits_share_is_over_all_images(tiny: dict[str, Any]) -> None:
    pytest.importorskip("sklearn")
    shared = {name: value for name, value in tiny.items() if name not in ("tokenizer", "seq_len")}
    env = LayerTyingEnv(**shared | {"model": "vit", "dataset": "digits", "validation_windows": 90})
    env.reset(seed=0)
    found = env.evaluate("validation")
    images: Any = env.workload._prepared(env.windows("validation", 90))
    with torch.no_grad():
        logits = env.trainer.network.model(pixel_values=torch.as_tensor(images["pixel_values"]).float()).logits
    assert found.input_dependence == pytest.approx(plain_share(logits), rel=1e-4)
    assert len(logits) == 90


@pytest.mark.parametrize("bias", [False, True])
def test_a_decoders_share_is_that_of_its_full_logits_whatever_its_head(bias: bool) -> None:
    model: Any = make_model("llama").eval()
    if bias:
        model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, V))
    windows = torch.arange(6 * T).reshape(6, T) % V
    with torch.no_grad():
        measured = tasks.DecoderLM().measure(model, windows, logits=True).logits
        expected = model(input_ids=windows[:, :-1]).logits.flatten(0, 1)
        owns = own_tasks.OwnLM().measure(model, windows, logits=True).logits
    assert measured is not None
    assert owns is not None
    torch.testing.assert_close(measured, expected)
    torch.testing.assert_close(owns, expected)


class Classifier(torch.nn.Module):
    """Returns logits that were made for it, as a transformers model does."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.loss = logits, torch.tensor(1.0)

    def forward(self, labels: torch.Tensor) -> "Classifier":
        return self


@pytest.mark.parametrize(
    ("labels", "shape", "kept"),
    [
        (torch.tensor([0, 1, 1]), (3, 2), [0, 1, 2]),
        (
            torch.tensor([[0, -100, 1], [-100, 1, -100]]),
            (2, 3, 4),
            [0, 2, 4],
        ),  # places without a label count for nothing
        (torch.tensor([0.5, 1.0, 2.0]), (3, 1), None),  # regression
        (torch.tensor([[1, 0], [0, 1], [1, 1]]), (3, 2), None),  # several classes at once: no softmax
    ],
)
def test_of_a_transformers_model_of_ones_own_logits_are_taken_where_labels_are_classes(
    labels: torch.Tensor, shape: tuple[int, ...], kept: list[int] | None
) -> None:
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    measured = own_tasks.CustomTask().measure(Classifier(logits), {"labels": labels}, logits=True)
    if kept is None:
        assert measured.logits is None
    else:
        assert measured.logits is not None
        assert measured.logits.tolist() == logits.flatten(0, -2)[kept].tolist()


def test_a_network_with_a_loss_of_its_own_has_no_share_and_is_never_called_collapsed() -> None:
    env = own()
    _, info = env.reset(seed=0)
    while not env.over:
        *_, info = env.step(np.arange(env.n_units))
    assert (info["input_dependence"], env.evaluate("validation").input_dependence) == (math.inf, None)
    assert validations([{**info}]) == []
