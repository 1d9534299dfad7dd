"""Networks of the user's own: found blocks, tied within their kind, trained, saved; and what is refused."""

import copy
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor, nn

from tests.models import TRAIN, L, Mixed, examples, own, squares
from tying_env.distributed import World
from tying_env.env import LayerTyingEnv
from tying_env.primary import feeding
from tying_env.primary import gradients as gradients_module
from tying_env.runs import load_network, save_network


def make_drawing_env(count: int, **settings: Any) -> LayerTyingEnv:
    """Return an environment, in double precision, whose batches of so many examples a function draws."""
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(L)))
    model = nn.Sequential(blocks, nn.Linear(5, 5))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.linspace(-0.5, 0.5, p.numel()).view_as(p))

    def draw_some(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
        return {"x": rng.standard_normal((count, 5)), "y": rng.standard_normal((count, 5))}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return (model(batch["x"]) - batch["y"]).square().mean()

    settings = TRAIN | {"dtype": "float64"} | settings
    env = LayerTyingEnv(model=model, blocks="0", batches=draw_some, loss=loss, **settings)
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("count", [6, 7])
def test_a_batch_that_falls_into_unequal_parts_trains_as_a_whole_one(count: int) -> None:
    results = []
    for accumulate in (1, 4):  # 4: three parts of two, or four of which the last has one
        env = make_drawing_env(count, accumulate=accumulate)
        losses = env.trainer.train(3).losses
        results.append([*losses, *(p.sum().item() for _, p in env.trainer.named_parameters())])
    assert results[1] == pytest.approx(results[0], rel=1e-9)


def test_unequal_shares_of_processes_average_to_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(world: World) -> list[Tensor]:
        for module in (feeding, gradients_module):
            monkeypatch.setattr(module, "world", lambda: world)
        monkeypatch.setattr(gradients_module, "summed", lambda own: 5.0)  # examples in all processes
        trainer = make_drawing_env(5, accumulate=2, max_grad_norm=1e9).trainer
        trainer.compute_gradients(*trainer.feed.next())
        return [p.grad for p in trainer.trainable_parameters() if p.grad is not None]

    whole = gradients(World(0, 1))
    monkeypatch.setattr(gradients_module, "DataParallel", lambda *_: None)  # each computes its share, none exchanges
    for expected, first, second in zip(whole, gradients(World(0, 2)), gradients(World(1, 2)), strict=True):
        torch.testing.assert_close((first + second) / 2, expected)
    with pytest.raises(ValueError, match="a batch must have an example for each of 6 processes, got 5"):
        gradients(World(5, 6))


class Sequence(nn.Module):
    """Blocks in an nn.Sequential, which has to be named; short sequences are inside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(3)))


class Twice(Mixed):
    """One block in two places."""

    def __init__(self) -> None:
        super().__init__((4, 4, 4))
        self.layers[2] = self.layers[0]


def test_any_module_trains_on_examples_and_is_checked_restored_forked(tmp_path: Path) -> None:
    check_env(own(), skip_render_check=True)
    env = own(learning_rate=0.01, total_steps=400, test=examples(7))
    env.reset(seed=0)
    first = env.evaluate("test", 0)
    assert (first.tokens, env.evaluate("validation", 4).tokens) == (7, 4)
    info = env.step(np.array([0, 0, 2]))[4]
    assert info["validation_perplexity"] == env.evaluate("validation").perplexity
    twin = own(learning_rate=0.01, total_steps=400, test=examples(7))
    twin.load_state_dict(copy.deepcopy(env.state_dict()))
    fork = env.fork()
    expected = env.step(np.array([0, 1, 0]))
    np.testing.assert_equal([twin.step(np.array([0, 1, 0])), fork.step(np.array([0, 1, 0]))], [expected, expected])
    env.trainer.train(100)
    assert env.evaluate("test", 0).mean_loss < first.mean_loss / 2
    path = tmp_path / "network"
    save_network(path, env.trainer, env.config, env.workload.sizes)
    saved = load_network(path, workload=env.workload)
    assert env.workload.evaluate(saved.network.model, "test", 0, env.device) == env.evaluate("test", 0)
    with pytest.raises(ValueError, match="'custom' cannot be built from settings"):
        load_network(path)


def test_parts_that_were_in_evaluation_mode_train_from_the_first_step_and_after_a_resume() -> None:
    module = Mixed((4, 4))
    module.layers[1].eval()  # as `from_pretrained` returns a network that is wrapped
    assert module.training
    env = own(module, total_steps=400)
    env.reset(seed=0)
    modes: list[bool] = []

    def watch(trained: nn.Module) -> None:
        block: Any = trained
        block.layers[1].register_forward_hook(lambda part, inputs, output: modes.append(part.training))

    watch(env.trainer.network.model)
    env.trainer.train(3)
    twin = own(module, total_steps=400)
    twin.load_state_dict(env.state_dict())
    watch(twin.trainer.network.model)
    twin.trainer.train(2)
    assert modes == [True] * 5


def test_a_module_is_the_start_of_every_episode_and_a_function_makes_new_weights() -> None:
    module = Mixed((4, 4))
    before = copy.deepcopy(module.state_dict())
    env = own(module)
    for seed in (0, 1):
        env.reset(seed=seed)
        assert torch.equal(env.trainer.network.model.get_parameter("single.weight"), before["single.weight"])
        env.step(np.array([0, 0]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    env = own(lambda: Mixed((4, 4)))
    drawn = []
    for seed in (0, 1, 0):
        env.reset(seed=seed)
        drawn.append(env.trainer.network.model.get_parameter("single.weight").detach().clone())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_blocks_that_differ_are_refused_or_tied_within_their_kind() -> None:
    with pytest.raises(
        ValueError, match=r"'0.weight' is \(4, 3\).* in block 0 and \(8, 3\).* in block 1; unequal_blocks"
    ):
        own(Mixed())
    env = own(Mixed(), unequal_blocks="within-kind")
    env.reset(seed=0)
    at_start = env.trainer.tied.tying
    assert at_start.tolist() == [0, 1, 0, 1, 0]
    assert env.action_space == gym.spaces.MultiDiscrete([1, 1, 2, 2, 3])  # an entry counts within the kind
    observation, *_, info = env.step(np.array([0, 0, 0, 0, 2]))
    assert (observation.tolist(), info["tying"].tolist()) == ([0, 0, 0, 0, 2], [0, 1, 0, 1, 4])
    observation, *_, info = env.step(np.array([0, 0, 1, 1, 1]))
    assert (observation.tolist(), info["tying"].tolist()) == ([0, 0, 1, 1, 1], [0, 1, 2, 3, 2])
    _, info = env.reset(options={"tying": np.zeros(5, dtype=np.int64)})
    assert info["tying"].tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"action\[3\] must be one of 0..1, counted within its kind, got 3"):
        env.step(np.array([0, 0, 1, 3, 2]))
    with pytest.raises(ValueError, match="layer 1 cannot copy layer 0: their blocks are of two kinds"):
        env.trainer.tied.change([0, 0, 0, 0, 0])


def test_the_environment_is_made_through_gymnasium_too() -> None:
    env = gym.make("LayerTying-GPT2-v0", model=Mixed((4, 4)), batches=examples(8), loss=squares, **TRAIN)
    env.reset(seed=0)
    assert env.step(np.array([0, 0]))[1] < 0


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        (
            {"blocks": "model.layers"},
            ValueError,
            r"at 'model.layers' there is nothing; candidates: 'layers' \(3 modules\), 'heads' \(1 modules\)",
        ),
        (
            {"model": Sequence(), "blocks": "nett"},
            ValueError,
            r"nn.ModuleList or nn.Sequential in Sequence; at 'nett' there is nothing; candidates: 'net' \(3 modules\)$",
        ),
        ({"model": Sequence()}, ValueError, r"no nn.ModuleList.*what blocks= can name: 'net' \(3 modules\)$"),
        ({"model": Twice()}, ValueError, "the blocks at 'layers' must be modules of their own.*number 0 and number 2"),
        ({"batches": [examples(4)] * 3}, TypeError, "batches must be examples, not a list of 3 batches: join them"),
        ({"validation": [{"x": torch.ones(3, 3)}]}, TypeError, "validation must be examples, not a list of 1 batches"),
        ({"blocks": "single"}, ValueError, r"at 'single' there is a Linear; candidates: 'layers'"),
        ({"blocks": ("layers", "layers")}, ValueError, "the blocks at 'layers' are in another list"),
        ({"blocks": ()}, ValueError, "blocks must name at least one list"),
        ({"n_layer": 7}, ValueError, "n_layer is the number of blocks, 3, got 7"),
        ({"batches": None}, TypeError, "batches must be a function that draws a batch, or an array of examples"),
        ({"batches": [3, 4]}, TypeError, "batches must be a function that draws a batch, or an array of examples.*int"),
        ({"batches": (torch.ones(3, 3), torch.ones(2, 1))}, ValueError, r"the same number of examples.* \[3, 2\]"),
        ({"batches": {}}, ValueError, "batches must hold arrays"),
        ({"validation": None}, ValueError, "validate_every needs validation=, examples to validate on; got 4"),
        ({"model": nn.Linear(2, 2)}, ValueError, "Linear has no nn.ModuleList of blocks to tie"),
        ({"model": lambda: 3}, TypeError, "model must be an nn.Module, or a function that makes one, got int"),
        ({"dropout": 0.5}, ValueError, "dropout does not apply to the model 'custom'"),
        ({"model": "bert"}, TypeError, "batches is for a network of your own"),
    ],
)
def test_bad_parts_are_refused_when_the_environment_is_made(
    changed: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        own(**changed)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, batch: 3, r"loss\(model, batch\) must return a scalar tensor, got int"),
        (lambda model, batch: batch[0], r"must return a scalar tensor, got a tensor of shape \(4, 3\)"),
        (None, "batches must be dictionaries of inputs and labels, got tuple"),
    ],
)
def test_a_loss_that_is_none_is_explained(loss: Any, message: str) -> None:
    env = own(loss=loss)
    env.reset(seed=0)
    with pytest.raises(TypeError, match=message):
        env.step(np.array([0, 0, 0]))


def test_a_split_without_examples_is_explained() -> None:
    env = own()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="no examples of the split 'test': give the environment test="):
        env.evaluate("test")


def test_the_documented_example_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(compile(code, "models.md", "exec"), names)
    assert names["reward"] < 0
    assert names["env"].config.n_layer == 6
