"""Let the network of a run, or an exported one, continue a text.

layer-tying generate runs/one --prompt "The state of the union"
layer-tying generate runs/one --prompt "The state" --tokens 50 --temperature 0.8 --seed 3
layer-tying generate exported/one --prompt "The state of the union"
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tying_agents.commands import guard
from tying_agents.commands.early import read_options
from tying_agents.commands.saved_runs import open_network, refuse_unnamed_code, settings_of_network
from tying_env.config.network import CAUSAL, DECODER, is_own
from tying_env.runs.run_directory import Which

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Let the network of a run continue a text."""

    run: tyro.conf.Positional[Path]
    """The run directory, the folder of an exported network, or the file of a packed one."""
    prompt: str = ""
    """The text to continue; it cannot be left out."""
    tokens: int = 50
    """How many tokens to add, at most."""
    temperature: float = 1.0
    """Divides the logits before drawing; 0 takes the likeliest token each time."""
    top_k: int = 50
    """Draw among this many likeliest tokens; 0 for all."""
    seed: int = 0
    """Seed of the draws."""
    network: Which = "best"
    """The network with the best validation perplexity, or the one at the end."""
    model: str | None = None
    """As of evaluate and export; but a network of your own cannot continue a text."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ...; auto takes a GPU when there is one."""


def main(argv: Sequence[str], prog: str = "layer-tying generate") -> int:
    """Generate, print the text, and return the exit code."""

    def work(console: "Console") -> int:
        options = read_options(Options, argv, prog, __doc__)
        console.print(generated(options), highlight=False, markup=False, soft_wrap=True)
        return 0

    return guard.guarded(work)


def generated(options: Options) -> str:
    """Return the prompt with what the network adds to it.

    Raises:
        ValueError: a setting is outside its range, or the network cannot continue a text.
        OSError: the run cannot be read.
    """
    if not options.prompt:
        raise ValueError('there is no text to continue: give one, such as --prompt "The state of the union"')
    if options.tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {options.tokens}")
    if not 0 <= options.temperature < float("inf"):
        raise ValueError(f"temperature must be a finite number of at least 0, got {options.temperature}")
    if options.top_k < 0:
        raise ValueError(f"top_k must be at least 0 (0: all), got {options.top_k}")
    env = settings_of_network(options.run, options.network, packed=True)
    if env["model"] not in (*CAUSAL, DECODER):
        what = "a network of your own" if is_own(str(env["model"])) else env["model"]
        raise ValueError(f"only a GPT-2 or another decoder of transformers can continue a text, not {what}")
    refuse_unnamed_code(env, options.run, options.model)
    import torch

    from tying_env.primary.models import find_device
    from tying_env.seeding import torch_randomness_from, torch_stream

    device = find_device(options.device)
    run = open_network(options.run, options.network, device, None)
    assert run.tokenizer is not None  # every decoder has one
    prompt = run.tokenizer.encode(options.prompt).tolist()
    room = run.config.seq_len - len(prompt)
    if options.tokens > room:
        raise ValueError(
            f"the network reads at most {run.config.seq_len} tokens: with a prompt of {len(prompt)} tokens, "
            f"tokens can be at most {max(room, 0)}, got {options.tokens}"
        )
    ids = torch.tensor([prompt], device=device)
    drawn: dict[str, Any] = {"do_sample": False}
    if options.temperature > 0:
        drawn = {"do_sample": True, "temperature": options.temperature, "top_k": options.top_k}
    model: Any = run.model
    with torch_randomness_from(torch_stream(options.seed, "generation", device)), torch.no_grad():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=options.tokens,
            use_cache=True,
            eos_token_id=run.tokenizer.end_of_text,
            pad_token_id=run.tokenizer.end_of_text or 0,
            **drawn,
        )
    added = made[0, len(prompt) :].tolist()
    if added and added[-1] == run.tokenizer.end_of_text:
        added = added[:-1]
    return options.prompt + run.tokenizer.decode(added)
