import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tying_env.data import load_tokenizer
from tying_env.env import LayerTyingEnv
from tying_env.named_tensors import check_tensors
from tying_env.primary import evaluation

AdamWBytes = 16  # float32: weight, gradient and two moments of a trained parameter


def numel(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


def test_the_network_is_transformers_gpt2_with_its_loss(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    trainer = env.trainer
    batch = torch.from_numpy(env.windows("validation", 3).astype(np.int64))
    trainer.network.model.eval()
    logits = trainer.network.model(input_ids=batch[:, :-1]).logits
    expected = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    torch.testing.assert_close(trainer.task.loss(trainer.network.model, batch), expected)


def test_layers_keep_their_own_index_and_modules_when_tied(env: LayerTyingEnv) -> None:
    env.reset(seed=0, options={"tying": [0, 0, 0, 0]})
    blocks: Any = env.trainer.network.blocks
    assert [block.attn.layer_idx for block in blocks] == [0, 1, 2, 3]
    assert blocks[1].attn.c_attn.weight is blocks[0].attn.c_attn.weight


def test_generation_with_a_cache_equals_generation_without(env: LayerTyingEnv) -> None:
    env.reset(seed=0, options={"tying": [0, 0, 2, 0]})
    env.step(np.array([0, 0, 2, 0]))
    model: Any = env.trainer.network.model.eval()
    prompt = torch.from_numpy(env.windows("test", 1)[:, :4].astype(np.int64))
    with_cache, without = (
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=8,
            do_sample=False,
            use_cache=c,
            pad_token_id=0,
        )
        for c in (True, False)
    )
    assert torch.equal(with_cache, without)
    assert with_cache.shape[1] == 12


@pytest.mark.parametrize("gradient", ["shared", "leader"])
def test_memory_is_exactly_what_unique_parameters_need(text_folder: Any, tiny: dict[str, Any], gradient: str) -> None:
    env = LayerTyingEnv(**tiny | {"gradient": gradient})
    env.reset(seed=0)
    outside = numel(env.trainer.network.model.parameters()) - 4 * numel(env.trainer.network.blocks[0].parameters())
    block = numel(env.trainer.network.blocks[0].parameters())
    env.trainer.train(1)  # the frozen start: layers 1..3 hold their weights, no more
    memory = env.trainer.memory_in_training
    assert memory == (4 * (outside + 4 * block), 4 * (outside + block), 8 * (outside + block))
    for tying in ([0, 0, 2, 0], [0, 1, 2, 3], [0, 0, 0, 0]):
        env.trainer.tied.change(tying, env.trainer.optimizer)
        env.trainer.train(1)
        unique = outside + len(set(tying)) * block
        assert env.trainer.memory_in_training.total == AdamWBytes * unique
        assert env.trainer.count_trainable() == unique
        assert env.trainer.memory().gradients == 0  # not held between steps
    assert env.trainer.count_conventional() == outside + 4 * block


def test_training_lowers_the_loss(tiny: dict[str, Any]) -> None:
    env = LayerTyingEnv(**tiny | {"learning_rate": 1e-2, "dropout": 0.0})
    env.reset(seed=0)
    first = env.evaluate("validation", 32).mean_loss
    env.trainer.tied.change([0, 1, 2, 3], env.trainer.optimizer)
    env.trainer.train(60)
    assert env.evaluate("validation", 32).mean_loss < first - 1.0


def test_dropout_draws_from_its_own_stream(tiny: dict[str, Any]) -> None:
    losses = []
    for noise in (False, True):
        env = LayerTyingEnv(**tiny | {"dropout": 0.5})
        env.reset(seed=0)
        if noise:
            torch.rand(17)  # the global generator is somebody else's
        losses.append(env.trainer.train(3).mean_loss)
    assert losses[0] == losses[1]


def test_evaluation_in_bits_per_byte_by_hand(env: LayerTyingEnv) -> None:
    env.reset(seed=0)
    result = env.evaluate("test", 5)
    assert result.tokens == 5 * 16
    assert result.perplexity == pytest.approx(math.exp(result.mean_loss))
    assert result.bits_per_byte == pytest.approx(result.mean_loss / math.log(2))  # one byte a token
    windows = env.windows("test", 5)
    lengths = load_tokenizer("bytes").byte_lengths * 2
    model, task = env.trainer.network.model, env.trainer.task
    twice = evaluation.evaluate(model, task, windows, 2, torch.device("cpu"), lengths)
    assert twice.bits_per_byte == pytest.approx(result.bits_per_byte / 2)
    assert twice.mean_loss == pytest.approx(result.mean_loss)  # whatever the batch size


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(0.0, 1.0), (2.0, math.exp(2)), (1000.0, math.exp(20)), (math.nan, math.inf), (math.inf, math.inf)],
)
def test_perplexity_is_bounded(loss: float, expected: float) -> None:
    assert evaluation.perplexity(loss) == pytest.approx(expected)


@pytest.mark.parametrize("where", ["loss", "gradient", "weight", "first moment", "second moment"])
def test_training_stops_before_anything_that_is_not_finite_is_applied(env: LayerTyingEnv, where: str) -> None:
    env.reset(seed=0, options={"tying": [0, 0, 2, 3]})
    trainer = env.trainer
    trainer.train(1)
    before = {name: p.detach().clone() for name, p in trainer.named_parameters()}
    weight = trainer.network.blocks[2].get_parameter("mlp.c_fc.weight")
    if where == "loss":
        plain = trainer.task.loss
        trainer.task.loss = lambda model, batch: plain(model, batch) * math.nan  # type: ignore[method-assign]
    elif where == "gradient":
        weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([1]), math.inf))
    elif where == "second moment":  # an infinite one makes every update zero: the weights stay finite
        trainer.optimizer.state[weight]["exp_avg_sq"].fill_(math.inf)
    elif where == "first moment":
        trainer.optimizer.state[weight]["exp_avg"][0, 0] = math.nan
    else:  # a single weight of many, and one that no batch need come across
        with torch.no_grad():
            trainer.network.model.get_parameter("transformer.wte.weight")[255, 3] = math.nan
    result = trainer.train(3)
    assert result.diverged
    if where in ("loss", "gradient"):
        assert result.losses == []
        assert all(torch.equal(p, before[name]) for name, p in trainer.named_parameters())


def test_a_restored_trainer_continues_with_the_same_bits(env: LayerTyingEnv, tiny: dict[str, Any]) -> None:
    env.reset(seed=0, options={"tying": [0, 0, 2, 0]})
    env.trainer.train(3)
    state = copy.deepcopy(env.trainer.state_dict())
    expected = [env.trainer.train(2) for _ in range(3)]
    other = LayerTyingEnv(**tiny)
    other.reset(seed=1, options={"tying": [0, 0, 2, 0]})
    other.trainer.load_state_dict(state)
    assert [other.trainer.train(2) for _ in range(3)] == expected
    tensors = ("weights", "optimizer", "dropout")
    json.dumps({key: value for key, value in state.items() if key not in tensors}, allow_nan=False)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(env: LayerTyingEnv) -> None:
    env.reset(seed=0, options={"tying": [0, 0, 2, 0]})
    env.trainer.train(1)
    state = env.trainer.state_dict()
    env.trainer.train(1)
    after = env.trainer.state_dict()
    wrong: list[tuple[dict[str, Any], str]] = [
        (state | {"tying": [0, 0, 0, 0]}, r"tying \[0, 0, 0, 0\]"),
        (state | {"weights": {}}, "lacks the tensor"),
        (state | {"weights": state["weights"] | {"more": torch.ones(1)}}, "unexpected tensor 'more'"),
        (state | {"optimizer": {"nobody": {}}}, "'nobody', which this network does not train"),
        (state | {"optimizer": {"transformer.ln_f.bias": {}}}, "optimizer state of 'transformer.ln_f.bias' lacks"),
        (state | {"batches": {}}, "state must be a dictionary"),
    ]
    for bad, message in wrong:
        with pytest.raises(ValueError, match=message):
            env.trainer.load_state_dict(bad)
        now = env.trainer.state_dict()
        assert all(torch.equal(now["weights"][name], after["weights"][name]) for name in after["weights"])
        assert now["batches"] == after["batches"]


def test_a_tensor_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"has 'a' of shape \(2,\), expected \(3,\)"):
        check_tensors({"a": torch.ones(2)}, {"a": (3,)})
