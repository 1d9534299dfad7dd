"""LLaMA from settings: its shape, its learning, and all that GPT-2's network can do."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import transformers
from gymnasium.utils.env_checker import check_env
from torch import nn
from torch.nn import functional as F
from tying_agents.commands.generate import Options, generated

from tests.conftest import TINY
from tests.tiny_runs import tiny_run
from tying_env import PRESETS, EnvConfig
from tying_env.downstream import make_classifier
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_export
from tying_env.primary import building
from tying_env.primary.kernels.for_transformers import attend
from tying_env.primary.llama import intermediate_size
from tying_env.primary.models import build_model
from tying_env.runs import load_run
from tying_env.seeding import torch_randomness_from, torch_stream

LLAMA: dict[str, Any] = TINY | {"model": "llama", "n_kv_head": 1}
TYINGS = ([0, 0, 2, 0], [0, 1, 1, 3])


@pytest.fixture
def llama(text_folder: Path) -> dict[str, Any]:
    """Settings of a tiny LLaMA on real text; both of its heads share keys and values."""
    return LLAMA | {"dataset": str(text_folder)}


def rewards(settings: dict[str, Any]) -> list[Any]:
    """Return what three steps after the frozen start come to."""
    env = LayerTyingEnv(**settings)
    env.reset(seed=3)
    return [env.step(np.array(tying))[1:] for tying in (*TYINGS, [0, 0, 0, 0])]


def test_the_environment_is_one_that_gymnasium_takes(llama: dict[str, Any]) -> None:
    made = gym.make("LayerTying-Llama-v0", **llama)
    check_env(made.unwrapped)
    assert gym.spec("LayerTying-Llama-v0").kwargs == PRESETS["llama", "small"]
    assert gym.spec("LayerTying-Llama-135M-v0").kwargs == PRESETS["llama", "135m"]


def test_it_computes_what_transformers_computes_and_has_a_llamas_parts(llama: dict[str, Any]) -> None:
    env = LayerTyingEnv(**llama | {"n_head": 4, "n_kv_head": 2})
    env.reset(seed=0, options={"tying": [0, 0, 2, 0]})
    model: Any = env.trainer.network.model.eval()
    assert type(model) is transformers.LlamaForCausalLM
    names = {name for name, _ in model.named_parameters()}
    assert not [name for name in names if name.endswith("bias")] and "lm_head.weight" not in names  # the embeddings
    layer = model.model.layers[1]
    assert layer.self_attn.k_proj.weight.shape == (8, 16) and layer.self_attn.q_proj.weight.shape == (16, 16)
    assert layer.mlp.gate_proj is not model.model.layers[0].mlp.gate_proj
    assert layer.mlp.gate_proj.weight is model.model.layers[0].mlp.gate_proj.weight
    windows = torch.from_numpy(np.asarray(env.windows("validation", 3)).astype(np.int64))
    with torch.no_grad():
        scores = model(input_ids=windows[:, :-1]).logits
        loss = env.trainer.task.loss(model, windows)
    torch.testing.assert_close(loss, F.cross_entropy(scores.flatten(0, 1), windows[:, 1:].flatten()))
    result = env.evaluate("validation", 3)
    assert result.mean_loss == pytest.approx(loss.item(), rel=1e-5) and result.bits_per_byte is not None


@pytest.mark.parametrize(
    ("width", "expected"), [(4096, 11_008), (5120, 13_824), (2048, 5632), (576, 1536), (64, 176), (16, 48)]
)
def test_the_feed_forward_part_is_as_wide_as_llamas_tinyllamas_and_smollms(width: int, expected: int) -> None:
    assert intermediate_size(width) == expected


def test_the_large_preset_is_smollm_135m_with_gpt2s_tokens() -> None:
    config = EnvConfig(**PRESETS["llama", "135m"])
    with torch.device("meta"):
        model: Any = build_model(config, {"vocab_size": 50_257})
    block = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576
    assert sum(p.numel() for p in model.parameters()) == 30 * block + 50_257 * 576 + 576 == 135_151_488
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (9, 3)


def test_it_learns_letters(llama: dict[str, Any]) -> None:
    recipe = {"learning_rate": 1e-2, "schedule": "constant", "warmup_steps": 0, "batch_size": 8, "dropout": 0.0}
    env = LayerTyingEnv(**llama | recipe)
    env.reset(seed=0, options={"tying": [0, 0, 2, 2]})
    env.trainer.train(60)
    frequencies = env.workload.frequency_perplexity("test", 32)
    assert frequencies is not None
    assert env.evaluate("test", 32).perplexity < frequencies


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_restored_and_a_forked_environment_continue_with_the_same_bits(llama: dict[str, Any], dropout: float) -> None:
    env, other = (LayerTyingEnv(**llama | {"dropout": dropout}) for _ in range(2))
    env.reset(seed=1)
    env.step(np.array(TYINGS[0]))
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    results = [twin.step(np.array(TYINGS[1])) for twin in (env, other, env.fork())]
    np.testing.assert_equal(results[1:], [results[0]] * 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_redrawn_frozen_layers_and_computing_blocks_again_change_no_bit(llama: dict[str, Any], dtype: str) -> None:
    common = llama | {"dtype": dtype, "dropout": 0.2}
    held = rewards(common)
    for choice in ({"frozen_weights": "redrawn"}, {"checkpoint_blocks": True}):
        np.testing.assert_equal(rewards(common | choice), held)


def test_rotations_stay_in_32_bits_in_a_network_of_16(llama: dict[str, Any]) -> None:
    for how in ("held", "redrawn"):
        config = EnvConfig(**llama | {"dtype": "bfloat16", "frozen_weights": how})
        network = building.build_network(config, {"vocab_size": 9}, torch.device("cpu"), torch_stream(0, "weights"))
        assert {b.dtype for name, b in network.model.named_buffers() if "inv_freq" in name} == {torch.float32}


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own doings
def test_compiled_blocks_compute_the_same(llama: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    compile_it = nn.Module.compile  # with a backend that only traces: inductor takes many seconds
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_it(self, backend="eager"))
    plain, compiled = (rewards(llama | {"dropout": 0.0, "compile_blocks": on}) for on in (False, True))
    assert [step[0] for step in compiled] == pytest.approx([step[0] for step in plain], rel=1e-5)


@pytest.mark.parametrize("is_causal", [True, False])
def test_attention_whose_heads_share_keys_is_torchs_but_for_its_mask(is_causal: bool) -> None:
    stream = torch_stream(0, "attention")
    shapes = ((2, 6, 7, 4), (2, 2, 7, 4), (2, 2, 7, 4))
    query, key, value = (torch.randn(s, generator=stream, dtype=torch.float64, requires_grad=True) for s in shapes)
    module: Any = SimpleNamespace(is_causal=is_causal)
    state = torch.random.get_rng_state()
    with torch_randomness_from(torch_stream(0, "masks")):
        out, _ = attend(module, query, key, value, None, dropout=1e-9)  # which rounds to none
    assert torch.equal(torch.random.get_rng_state(), state)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(out, expected)
    for one, other in zip(
        *(torch.autograd.grad(o.square().sum(), (query, key, value)) for o in (out, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_scaled_branches_add_their_share(llama: dict[str, Any]) -> None:
    env = LayerTyingEnv(**llama | {"residual_scale": "sqrt"})
    env.reset(seed=0, options={"tying": [0, 0, 0, 0]})
    model: Any = env.trainer.network.model.eval()
    layer, x = model.model.layers[2], torch.randn(2, 5, 16, generator=torch_stream(0, "x"))
    places = model.model.rotary_emb(x, torch.arange(5)[None])
    with torch.no_grad():
        found = layer(x, position_embeddings=places)
        for buffer in (layer.self_attn.residual_scale, layer.mlp.residual_scale):
            assert buffer.item() == 0.5
            buffer.fill_(1.0)
        layer.self_attn.o_proj.weight.mul_(0.5)
        layer.mlp.down_proj.weight.mul_(0.5)
        torch.testing.assert_close(layer(x, position_embeddings=places), found)


def test_scales_and_deltas_go_into_the_weights_of_a_dense_export(llama: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    env = LayerTyingEnv(**llama | {"residual_scale": "linear", "delta_rank": 2, "learning_rate": 1e-2})
    env.reset(seed=0)
    for tying in TYINGS:
        env.step(np.array(tying))
    expected = env.evaluate("test", 8).mean_loss
    folder = export_tied(env, tmp_path / "dense", dense=True)
    opened = transformers.LlamaForCausalLM.from_pretrained(folder)
    assert env.workload.evaluate(opened, "test", 8, env.device).mean_loss == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    """A run of four layers, the two in the middle one."""
    return tiny_run(tmp_path_factory.mktemp("llama") / "run", text_folder, model="llama", n_kv_head=1)


def test_its_run_is_read_back_and_continues_a_text_with_its_cache_as_without(run_folder: Path) -> None:
    run = load_run(run_folder)
    ids = torch.tensor([list(b"The state")])
    drawn: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
    model: Any = run.model
    made = [model.generate(ids, use_cache=cache, pad_token_id=0, **drawn).tolist() for cache in (True, False)]
    assert made[0] == made[1]
    text = generated(Options(run_folder, prompt="The state", tokens=6, temperature=0))
    assert text == bytes(made[0][0]).decode(errors="replace")


def test_an_exported_one_opens_tied_here_and_dense_in_transformers(run_folder: Path, tmp_path: Path) -> None:
    run, device = load_run(run_folder), torch.device("cpu")
    workload = run.open_workload()
    expected = workload.evaluate(run.model, "test", 8, device).mean_loss
    tied = load_export(export_tied(run_folder, tmp_path / "tied"))
    layers: Any = tied.saved.network.blocks
    assert layers[1].mlp.up_proj.weight is layers[2].mlp.up_proj.weight
    assert workload.evaluate(tied.saved.network.model, "test", 8, device).mean_loss == expected
    dense = export_tied(run_folder, tmp_path / "dense", dense=True)
    opened: Any = transformers.AutoModelForCausalLM.from_pretrained(dense)
    assert type(opened) is transformers.LlamaForCausalLM
    assert workload.evaluate(opened, "test", 8, device).mean_loss == pytest.approx(expected, rel=1e-6)
    assert transformers.AutoTokenizer.from_pretrained(dense)("The")["input_ids"] == list(b"The")
    assert "A token is a byte of UTF-8" in (dense / "README.md").read_text()


def test_a_classifier_reads_its_last_token(run_folder: Path) -> None:
    for method in ("head", "lora"):
        made = make_classifier(run_folder / "final.safetensors", method, torch_stream(0, "head"))  # type: ignore[arg-type]
        ids, mask = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 1, 0]])
        changed = torch.tensor([[5, 6, 99]])
        made.eval()
        assert torch.equal(made(ids, mask), made(changed, mask))
        assert not torch.equal(made(ids, torch.ones_like(mask)), made(changed, torch.ones_like(mask)))
