"""What a network needs beside its weights where this package is not: tokenizer, pixel scale, names of classes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tying_env.config.network import DECODER, TEXT, is_own
from tying_env.data.byte_level import byte_backend
from tying_env.data.dna import dna_backend
from tying_env.data.tokenizers import END_OF_TEXT, gpt2_merges
from tying_env.files import to_json, written_whole
from tying_env.primary.checkpoint import TOKENIZER
from tying_env.primary.decoders import end_token

PIXELS = "preprocessor_config.json"
_MASK = "<mask>"


def name_in_config(config: Any, env: dict[str, Any], data: dict[str, Any], sizes: dict[str, Any]) -> None:
    """Write names into a transformers configuration: of a ViT's classes, of a BERT's mask.

    Args:
        config: of the model; changed.
        env: settings of the environment.
        data: what its workload says of its data.
        sizes: what the network knows of its data.
    """
    if env["model"] == "vit":
        config.id2label = dict(enumerate(data["classes"]))
        config.label2id = {name: i for i, name in enumerate(data["classes"])}
    if env["model"] == "bert":
        config.mask_token_id = sizes["vocab_size"]


def write_companions(
    folder: Path, env: dict[str, Any], data: dict[str, Any], sizes: dict[str, Any], files: Mapping[str, bytes]
) -> None:
    """Write into a folder what `AutoTokenizer` or `AutoImageProcessor` of transformers opens, where there is any.

    Args:
        folder: where; the model's config.json is there already.
        env: settings of the environment.
        data: what its workload says of its data.
        sizes: what the network knows of its data.
        files: what a run directory keeps of a checkpoint; see `Workload.files`.

    Raises:
        OSError: a file cannot be written.
    """
    if TOKENIZER in files:
        from transformers import PreTrainedTokenizerFast

        with written_whole(folder / TOKENIZER) as unfinished:
            unfinished.write_bytes(files[TOKENIZER])
        described = json.loads(files[TOKENIZER])
        end = end_token(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        named = [entry["content"] for entry in described.get("added_tokens") or [] if entry.get("id") == end]
        ends = {"eos_token": named[0]} if named else {}
        PreTrainedTokenizerFast(
            tokenizer_file=str(folder / TOKENIZER), model_max_length=env["seq_len"], **ends
        ).save_pretrained(folder)
        with written_whole(folder / TOKENIZER) as unfinished:  # as it was, to the byte
            unfinished.write_bytes(files[TOKENIZER])
    if "vocab_size" in sizes and env["tokenizer"] != "checkpoint":
        _tokenizer(env).save_pretrained(folder)
    if env["model"] == "vit" and "pixel_mean" in data:
        about = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": False,
            "size": dict(zip(("height", "width"), data["shape"][1:], strict=True)),
            "do_rescale": False,
            "do_normalize": True,
            "image_mean": data["pixel_mean"],
            "image_std": data["pixel_deviation"],
        }
        with written_whole(folder / PIXELS) as unfinished:
            unfinished.write_text(to_json(about, indent=2) + "\n", encoding="utf-8")


def _tokenizer(env: dict[str, Any]) -> Any:
    """Return GPT-2's tokenizer of transformers, or one whose tokens are bytes or bases."""
    from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

    options = {"model_max_length": env["seq_len"], **({"mask_token": _MASK} if env["model"] == "bert" else {})}
    if env["tokenizer"] == "gpt2":
        vocabulary, merges = gpt2_merges()
        return GPT2Tokenizer(vocab=vocabulary, merges=merges, **options)
    if env["tokenizer"] == "dna":
        backend = dna_backend(END_OF_TEXT)
        options |= {"unk_token": "N", "eos_token": END_OF_TEXT}
    else:
        backend = byte_backend()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **options)


def input_section(env: dict[str, Any], data: dict[str, Any], sizes: dict[str, Any]) -> str:
    """Return what a model card says of the network's input; nothing for a network of the user's own."""
    if env["model"] == "vit":
        if "pixel_mean" not in data:
            return "\n## Input\n\nThe run did not record mean and deviation of the pixels it was trained on.\n"
        channels, height, width = data["shape"]
        mean, deviation = (
            ", ".join(f"{value:.6g}" for value in data[f"pixel_{name}"]) for name in ("mean", "deviation")
        )
        return (
            f"\n## Input\n\nImages of {height} x {width} pixels in {channels} channels, as they are in the data; each "
            f"channel less its mean ({mean}), divided by its deviation ({deviation}), as "
            f"`AutoImageProcessor.from_pretrained(folder)` does it. Classes: {', '.join(data['classes'])}.\n"
        )
    if env["model"] == "speech":
        mean, deviation = (", ".join(f"{value:.6g}" for value in data[f"feature_{n}"]) for n in ("mean", "deviation"))
        features = sizes["features"]
        made = "" if "rate" not in sizes else f" of sound with {sizes['rate']:,} samples a second"
        return (
            f"\n## Input\n\nUp to {env['seq_len']} frames of {features} features{made}: `model(frames, lengths)` takes "
            f"frames padded behind their ends, (B, T, {features}), and how many each utterance has, (B,). Each feature "
            f"less its mean ({mean}), divided by its deviation ({deviation}). Classes: {', '.join(data['classes'])}.\n"
        )
    if env["model"] not in (*TEXT, DECODER) and not (is_own(env["model"]) and "vocab_size" in sizes):
        return ""
    mask = f" The mask is token {sizes['vocab_size']}." if env["model"] == "bert" else ""
    opened = "`AutoTokenizer.from_pretrained(folder)` opens the tokenizer in this folder."
    how = {
        "gpt2": f"GPT-2's tokens: {opened}",
        "dna": f"A token is a base, A, C, G, T or N for one that is not known; one more ends a record: {opened}",
        "checkpoint": f"The tokens of the checkpoint that it started from: {opened}",
        "bytes": f"A token is a byte of UTF-8, `list(text.encode())`: {opened}",
    }[env["tokenizer"]]
    return f"\n## Input\n\nUp to {env['seq_len']} tokens. {how}{mask}\n"
