"""Decoders of transformers from a checkpoint, model="causal-lm": trained, saved, read back without it, exported."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file
from tying_agents.run_config import RunConfig
from tying_agents.running.runner import resume, run

from tests.decoder_folders import END, SIZES, L, byte_level, make, save, sentence_piece, settings
from tests.reliability.runs import Watcher, interrupt, outcome
from tying_env import EnvConfig
from tying_env.compression import load_packed, pack_network
from tying_env.compression.pruning import Pruning, input_norms, linears_of, prune
from tying_env.data import load_corpus
from tying_env.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from tying_env.downstream.classifier import make_classifier
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied
from tying_env.primary.checkpoint import checkpoint_settings
from tying_env.runs import RunDirectory, load_network, load_run, save_network


@pytest.fixture(scope="module")
def text(text_folder: Path) -> str:
    return (text_folder / "train.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, text: str) -> dict[str, Path]:
    """A LLaMA with its own head and a SentencePiece vocabulary, and a Qwen2, tied head and byte-level vocabulary."""
    root = tmp_path_factory.mktemp("decoders")
    llama = transformers.LlamaConfig(**SIZES | {"vocab_size": 400}, tie_word_embeddings=False)
    qwen2 = transformers.Qwen2Config(**SIZES, tie_word_embeddings=True)
    return {
        "llama": save(root / "llama", "LlamaForCausalLM", llama, sentence_piece(text, 400)),
        "qwen2": save(root / "qwen2", "Qwen2ForCausalLM", qwen2, byte_level(text, 290)),
    }


@pytest.fixture(params=["llama", "qwen2"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def test_an_episode_starts_from_the_checkpoint_and_computes_its_loss(folder: Path, text_folder: Path) -> None:
    env = make(folder, text_folder)
    assert (env.config.n_layer, env.config.n_embd, env.config.n_head) == (L, 16, 2)
    assert env.config.tokenizer == "checkpoint"
    env.reset(seed=0)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for name, parameter in env.trainer.network.model.named_parameters():
        assert torch.equal(parameter, theirs.get_parameter(name)), name
    windows = torch.as_tensor(np.array(env.windows("test", 8)), dtype=torch.int64)
    with torch.no_grad():
        scores = theirs.eval()(windows[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(scores.transpose(1, 2), windows[:, 1:])
    assert env.evaluate("test", 8).mean_loss == pytest.approx(expected.item(), rel=1e-5)


def test_a_decoder_trains_and_is_restored_and_forked_to_the_bit(folder: Path, text_folder: Path) -> None:
    env, twin = (make(folder, text_folder, learning_rate=1e-2) for _ in range(2))
    env.reset(seed=1)
    before = env.evaluate("validation").mean_loss
    env.step(np.array([0, 0, 2]))
    twin.load_state_dict(copy.deepcopy(env.state_dict()))
    fork = env.fork()
    expected = env.step(np.array([0, 1, 1]))
    np.testing.assert_equal([twin.step(np.array([0, 1, 1])), fork.step(np.array([0, 1, 1]))], [expected, expected])
    assert expected[4]["independent_layers"] == 2
    env.trainer.train(20)
    assert env.evaluate("validation").mean_loss < before


def test_a_run_is_read_resumed_and_exported_without_the_checkpoint(
    folders: dict[str, Path], text_folder: Path, tmp_path: Path
) -> None:
    for name, source in folders.items():
        folder = shutil.copytree(source, tmp_path / f"{name}-checkpoint")
        env = EnvConfig(**settings(folder, text_folder) | checkpoint_settings(folder))
        config = RunConfig(agent="random", env=env, checkpoint_every=2, test_windows=0, run_dir=tmp_path / name)
        directory, status = run(config, [Watcher()])
        assert status == "finished"
        watcher = Watcher(lambda decision: interrupt() if decision == 3 else None)
        part, status = run(RunConfig(**vars(config) | {"run_dir": tmp_path / f"{name}-part"}), [watcher])
        assert status == "interrupted"
        assert resume(part.path, [Watcher()])[1] == "finished"
        assert outcome(part.path) == outcome(directory.path)
        shutil.rmtree(folder)
        loaded = load_run(directory.path)
        workload = loaded.open_workload()
        measured = directory.read_json("summary.json")["test"]["best"]
        result = workload.evaluate(loaded.model, "test", 0, torch.device("cpu"))
        assert result.perplexity == pytest.approx(measured["perplexity"])
        assert result.bits_per_byte == pytest.approx(measured["bits_per_byte"])
        assert loaded.tokenizer is not None
        ids = torch.tensor([loaded.tokenizer.encode("The state of the").tolist()])
        model: Any = loaded.model
        continued = model.generate(ids, max_new_tokens=4, do_sample=False)
        check_export(directory, tmp_path / f"{name}-out", ids, continued, loaded.model)


def check_export(directory: RunDirectory, out: Path, ids: torch.Tensor, continued: torch.Tensor, model: Any) -> None:
    with torch.no_grad():
        scores = model(ids).logits
    export_tied(directory.path, out / "tied")
    tied: Any = load_tied(out / "tied")
    export_tied(directory.path, out / "dense", dense=True)
    dense: Any = transformers.AutoModelForCausalLM.from_pretrained(out / "dense").eval()
    for other in (tied, dense):
        torch.testing.assert_close(other(ids).logits, scores)
        assert torch.equal(other.generate(ids, max_new_tokens=4, do_sample=False), continued)
    unique = sum(t.numel() for t in load_file(out / "tied" / "tied.safetensors").values())
    assert unique == sum(p.numel() for p in model.parameters())
    pack_network(load_run(directory.path), out / "packed", bits=8)
    packed: Any = load_packed(out / "packed")
    assert type(packed) is type(model)
    torch.testing.assert_close(packed(ids).logits, scores, rtol=0.1, atol=0.05)  # 8 bits a weight
    loaded = load_run(directory.path)
    linears = linears_of(loaded.saved.network)
    prune(linears, input_norms(loaded.model, linears, loaded.open_workload(), 4), Pruning(0.5))
    assert len(linears) == 7 * len(set(loaded.tying.tolist()))  # q, k, v, o, gate, up, down
    assert all(bool(((linear.weight == 0).sum(1) == linear.weight.shape[1] // 2).all()) for linear in linears)
    for kind in ("tied", "dense"):
        reads = transformers.AutoTokenizer.from_pretrained(out / kind)
        assert reads.encode("The state of the", add_special_tokens=False) == ids[0].tolist()
        assert "AutoTokenizer.from_pretrained(folder)" in (out / kind / "README.md").read_text()


def test_a_network_file_is_made_whole_without_its_checkpoint_and_holds_its_architecture(
    folder: Path, text_folder: Path, tmp_path: Path
) -> None:
    env = make(folder, text_folder, dtype="bfloat16")
    env.reset(seed=0)
    env.step(np.array([0, 0, 0]))
    save_network(tmp_path / "net", env.trainer, env.config, env.workload.sizes)
    saved = load_network(tmp_path / "net")
    assert env.workload.evaluate(saved.network.model, "test", 4, env.device) == env.evaluate("test", 4)
    constants = [b for name, b in saved.network.model.named_buffers() if name.endswith("inv_freq")]
    assert constants
    assert all(b.dtype == torch.float32 for b in constants)
    sizes = dict(env.workload.sizes)
    for architecture, message in (
        ({**sizes["architecture"], "num_hidden_layers": 4}, "its architecture has n_layer=4, its settings 3"),
        ({**sizes["architecture"], "model_type": "no-such"}, "transformers has no network of the type 'no-such'"),
        ({**sizes["architecture"], "auto_map": {"AutoConfig": "x.Y"}}, "must not have 'auto_map'"),
        ({**sizes["architecture"], "_attn_implementation": "a/b"}, "must not have '_attn_implementation'"),
        ("llama", "must be an object with a 'model_type'"),
    ):
        save_network(tmp_path / "odd", env.trainer, env.config, sizes | {"architecture": architecture})
        with pytest.raises(ValueError, match=message):
            load_network(tmp_path / "odd")


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_tokens_are_those_of_the_library_and_their_bytes_are_those_of_the_text(
    folders: dict[str, Path], text_folder: Path, text: str, name: str
) -> None:
    ours = load_checkpoint_tokenizer(folders[name] / "tokenizer.json", 0)
    theirs = tokenizers.Tokenizer.from_file(str(folders[name] / "tokenizer.json"))
    tokens = ours.encode(text)
    assert tokens.tolist() == theirs.encode(text, add_special_tokens=False).ids
    before = 1 if name == "llama" else 0  # the space that its vocabulary writes before a text
    assert ours.byte_lengths is not None
    assert ours.byte_lengths[tokens].sum() == len(text.encode()) + before
    assert ours.decode(tokens) == " " * before + text
    odd = "naïve ☃ \U0001f600"
    assert ours.decode(ours.encode(odd)).lstrip() == odd
    corpus = load_corpus(str(text_folder), ours)
    assert np.array_equal(corpus.train, tokens)
    assert copy.deepcopy(ours) is ours
    # What looks like a special token is text.
    assert 0 not in ours.encode(f"{END}<s>").tolist()


def test_bits_per_byte_are_left_out_with_the_reason_where_tokens_are_no_pieces_of_the_text(
    folders: dict[str, Path], text_folder: Path, text: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["qwen2"], tmp_path / "words")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    words.train_from_iterator([text], trainer)
    words.save(str(folder / "tokenizer.json"))
    env = make(folder, text_folder)
    env.reset(seed=0)
    assert env.evaluate("test", 4).bits_per_byte is None
    assert env.workload.describe()["no_bits_per_byte"] == "its tokens are no pieces of the text's bytes (decoder: none)"
    lower = byte_level(text, 290)
    lower.normalizer = tokenizers.normalizers.StripAccents()
    lower.normalizer = tokenizers.normalizers.Replace("the", "")
    lower.save(str(folder / "tokenizer.json"))
    env = make(folder, text_folder)
    assert "bytes, the text has" in env.workload.describe()["no_bits_per_byte"]
    assert make(folders["qwen2"], text_folder).workload.describe()["no_bits_per_byte"] is None


def test_token_ids_of_a_large_vocabulary_are_kept_whole(tmp_path: Path, text_folder: Path) -> None:
    words = {f"w{i}": i for i in range(70_000)} | {"[UNK]": 70_000, "the": 70_001}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    corpus = load_corpus(str(text_folder), load_checkpoint_tokenizer(tmp_path / "tokenizer.json", None))
    assert corpus.train.max() == 70_001


def test_bytes_are_read_where_the_vocabulary_is_large_enough(folder: Path, text_folder: Path) -> None:
    env = make(folder, text_folder, tokenizer="bytes")
    env.reset(seed=0)
    assert env.evaluate("test", 4).bits_per_byte is not None
    assert env.workload.files() == {}
    with pytest.raises(ValueError, match="the tokenizer 'gpt2' has 50257 tokens, the network embeddings for"):
        make(folder, text_folder, tokenizer="gpt2")


def test_what_is_wrong_with_a_checkpoint_is_said(folder: Path, text_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    (copied / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no tokenizer\.json in .*; or choose tokenizer='bytes'"):
        make(copied, text_folder)
    (copied / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="it is no tokenizer of the library"):
        make(copied, text_folder)
    config = json.loads((copied / "config.json").read_text())
    for changed, message in (
        ({"architectures": ["LlamaForSequenceClassification"]}, "must be of a decoder"),
        ({"quantization_config": {"bits": 4}}, "is of quantised weights"),
        ({"num_hidden_layers": None}, "must have a whole number above 0 under 'num_hidden_layers', got None"),
        ({"model_type": "no-such"}, "transformers has no network of the type 'no-such'"),
        ({"hidden_act": "no-such"}, "the configuration of a '.*' does not make a decoder"),
        ({"model_type": 3}, "must name the type of the network"),
    ):
        (copied / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(ValueError, match=message):
            make(copied, text_folder, tokenizer="bytes")
    with pytest.raises(ValueError, match="seq_len must be at most 32"):
        make(folder, text_folder, seq_len=33)
    with pytest.raises(ValueError, match=r"the checkpoint .* has n_layer=3, the settings 4"):
        make(folder, text_folder, n_layer=4)
    with pytest.raises(ValueError, match="'causal-lm' starts from a checkpoint"):
        LayerTyingEnv(model="causal-lm", tokenizer="bytes")
    with pytest.raises(ValueError, match="dropout does not apply to the model 'causal-lm'"):
        make(folder, text_folder, dropout=0.3)


def test_code_beside_a_checkpoint_is_never_run(folder: Path, text_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    mark = tmp_path / "ran"
    (copied / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    config = json.loads((copied / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    (copied / "config.json").write_text(json.dumps(config | {"auto_map": auto_map, "_attn_implementation": "a/b"}))
    env = make(copied, text_folder)
    env.reset(seed=0)
    assert "auto_map" not in env.workload.sizes["architecture"]
    assert not mark.exists()


def test_a_gpt2_that_computes_otherwise_starts_as_a_decoder(text_folder: Path, tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=256, n_positions=32, n_embd=16, n_layer=L, n_head=2, activation_function="relu", eos_token_id=None
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"activation_function='relu'.*the model 'causal-lm' computes as"):
        checkpoint_settings(tmp_path)
    env = make(tmp_path, text_folder, tokenizer="bytes")
    env.reset(seed=0)
    assert env.step(np.array([0, 0, 1]))[1] < 0


@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_a_decoder_classifies_by_its_last_token(folder: Path, text_folder: Path, tmp_path: Path, method: Any) -> None:
    env = make(folder, text_folder)
    env.reset(seed=0, options={"tying": [0, 0, 2]})
    save_network(tmp_path / "net", env.trainer, env.config, env.workload.sizes)
    classifier = make_classifier(tmp_path / "net", method, torch.Generator().manual_seed(0)).eval()
    tokens = torch.randint(2, 256, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    scores = classifier(tokens, mask)
    tokens[1, 6:] = 0  # padding
    torch.testing.assert_close(classifier(tokens, mask), scores)
    trained = [name for name, p in classifier.named_parameters() if p.requires_grad]
    assert any("head" in name for name in trained)
    assert any("lora_" in name for name in trained) == (method == "lora")
