"""Batches in which not everything is predicted: a mean is over what counts, however a batch is cut."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.models import FAMILIES, TRAIN, T, V
from tying_env.env import LayerTyingEnv
from tying_env.primary.evaluation import measure
from tying_env.primary.own_tasks import CustomTask, transformers_loss
from tying_env.seeding import torch_randomness_from, torch_stream

SHIFTED = {"gpt2": 1, "bert": 0}  # causal models predict the next place


def network(family: str) -> Any:
    model, config, sizes, _ = FAMILIES[family]
    dropless = (
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        if family == "gpt2"
        else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    )
    with torch_randomness_from(torch_stream(0, "weights")):
        return getattr(transformers, model)(getattr(transformers, config)(**sizes | dropless)).double()


def examples() -> dict[str, Any]:
    """Return eight sequences: of the first one label counts, of the last all do, of the second none."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, V, (8, T))
    labels = ids.copy()
    for row, counted in enumerate((1, 0, 3, 4, 5, 6, 8, T)):
        labels[row, 1 : T + 1 - counted] = -100
        labels[row, 0] = -100 if counted < T else labels[row, 0]
    return {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("family", SHIFTED)
def test_a_measurement_does_not_depend_on_the_batches_it_is_cut_into(family: str) -> None:
    model, data = network(family), examples()
    there = {name: torch.from_numpy(part) for name, part in data.items()}
    with torch.no_grad():
        whole = float(transformers_loss(model.eval(), there)[0])
    for size in (1, 3, 8):
        batches = [{name: part[i : i + size] for name, part in data.items()} for i in range(0, 8, size)]
        found = measure(model, CustomTask(), batches, torch.device("cpu"))
        assert found.mean_loss == pytest.approx(whole, rel=1e-6)  # transformers computes in single precision
        assert math.isfinite(found.mean_loss)
        assert found.predictions == int((data["labels"][:, SHIFTED[family] :] != -100).sum())


@pytest.mark.parametrize("family", SHIFTED)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(family: str) -> None:
    found = []
    for accumulate in (1, 4, 8):
        env = LayerTyingEnv(
            model=lambda: network(family), batches=examples(), accumulate=accumulate, **TRAIN | {"batch_size": 8}
        )
        env.reset(seed=0)
        loss = env.trainer.train(1).losses[0]
        found.append((loss, env.trainer.gradient_norm))
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-6)


def test_an_evaluation_tells_how_many_predictions_its_loss_is_of() -> None:
    data = examples()
    env = LayerTyingEnv(model=lambda: network("bert"), batches=data, validation=data, **TRAIN)
    env.reset(seed=0)
    assert env.evaluate("validation").tokens == int((data["labels"] != -100).sum())
