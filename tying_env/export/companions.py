"""What a network needs beside its weights where this package is not: tokenizer, pixel scale, names of classes."""

from pathlib import Path
from typing import Any

from tying_env.data.tokenizers import gpt2_merges
from tying_env.files import to_json, written_whole

PIXELS = "preprocessor_config.json"
_MASK = "<mask>"


def name_in_config(config: Any, env: dict[str, Any], data: dict[str, Any], sizes: dict[str, int]) -> None:
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


def write_companions(folder: Path, env: dict[str, Any], data: dict[str, Any]) -> None:
    """Write into a folder what `AutoTokenizer` or `AutoImageProcessor` of transformers opens, where there is any.

    Raises:
        OSError: a file cannot be written.
    """
    if env["model"] in ("gpt2", "bert") and env["tokenizer"] == "gpt2":
        from transformers import GPT2Tokenizer

        vocabulary, merges = gpt2_merges()
        mask = {"mask_token": _MASK} if env["model"] == "bert" else {}
        tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=env["seq_len"], **mask)
        tokenizer.save_pretrained(folder)
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


def input_section(env: dict[str, Any], data: dict[str, Any], sizes: dict[str, int]) -> str:
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
    if env["model"] not in ("gpt2", "bert"):
        return ""
    mask = f" The mask is token {sizes['vocab_size']}." if env["model"] == "bert" else ""
    how = (
        "GPT-2's tokens: `AutoTokenizer.from_pretrained(folder)` opens the tokenizer in this folder."
        if env["tokenizer"] == "gpt2"
        else "A token is a byte of UTF-8: `list(text.encode())`, and back `bytes(tokens).decode()`."
    )
    return f"\n## Input\n\nUp to {env['seq_len']} tokens. {how}{mask}\n"
