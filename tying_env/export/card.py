"""The card of an exported network: what it is, how it is tied, on what it was trained, how well it does."""

import json
from typing import Any

from tying_env.config.network import BUILT, CUSTOM, is_own
from tying_env.export.tied_folder import is_transformers
from tying_env.partition import leaders
from tying_env.primary.additions import additions_in
from tying_env.primary.models import PrimaryNetwork
from tying_env.primary.owned import owned_parameters
from tying_env.primary.reuse import reuses
from tying_env.render import replication_map_text
from tying_env.runs.exported import without_folders
from tying_env.tied_blocks import TiedBlocks

MODEL = "model.safetensors"  # as transformers names it, too


def model_card(
    network: PrimaryNetwork,
    tied: TiedBlocks,
    tying: list[int],
    about: dict[str, Any],
    numbers: dict[str, Any] | None,
    dense: bool,
    its_input: str,
    sizes: dict[str, Any],
) -> str:
    """Return the model card, in Markdown.

    Args:
        network: what is exported.
        tied: its blocks.
        tying: the tying that was reported, (L,).
        about: settings and data of the run, or of the environment.
        numbers: what was measured on the test split; None for nothing.
        dense: whether every layer is stored with weights of its own.
        its_input: what is said of input.
        sizes: what the network knows of its data.
    """
    about = without_folders(about)
    unique = sum(p.numel() for _, p in owned_parameters(network, tied))
    borrowed = [i for i in range(tied.n_units) if i not in tied.owners()]
    conventional = unique + sum(p.numel() for i in borrowed for p in dict.fromkeys(tied.weights(i).values()))
    env = about["env"]
    name = type(network.model).__name__
    code = about["data"].get("code", {})
    made = f"  # as {code['import']} makes it, sha256 {code['sha256']}" if code else ""
    transformers, built = is_transformers(network.model), env["model"] in BUILT
    comes = "  # pip install tying-env"
    if not dense and (transformers or built):
        load = f"from tying_env.export import load_tied{comes}\n\nmodel = load_tied(folder)"
    elif not dense:
        load = f"from tying_env.export import load_tied{comes}\n\nmodel = load_tied(folder, model={name}(...)){made}"
    elif transformers:
        load = f"from transformers import {name}\n\nmodel = {name}.from_pretrained(folder)"
    elif built:
        load = f"from tying_env.export import load_export{comes}\n\nmodel = load_export(folder).model"
    else:
        load = f"from safetensors.torch import load_model\n\nmodel = {name}(...){made}\n"
        load += f'load_model(model, f"{{folder}}/{MODEL}")'
    library = "transformers" if transformers else "pytorch"
    stored = (
        "Every layer is stored with weights of its own."
        if dense
        else "Every weight is stored once. `from_pretrained` and `save_pretrained` of transformers know nothing of "
        "that: for a checkpoint in their form, export once more with `--dense` (`export_tied(..., dense=True)`). "
        "Adapters (LoRA) are merged into `load_tied(folder, tied=False)`, where no layers share weights."
    )
    if reuses(network):
        stored = (
            "Every weight is stored once. Tied layers reuse the attention probabilities of their leader, the lowest "
            "layer of their group: `load_tied` sets that up, `from_pretrained` of transformers could not."
        )
    if (added := additions_in(network.model)) and not dense:
        stored += (
            f" `load_tied` adds what transformers does not know: {', '.join(f'{k}={v!r}' for k, v in added.items())}."
        )
    own_data = env["model"] == CUSTOM or (is_own(env["model"]) and "vocab_size" not in sizes)
    data = "data of the user's own" if own_data else env["dataset"]
    tokens = f", tokenizer `{env['tokenizer']}`" if "vocab_size" in sizes else ""
    start = "random weights" if env["init_from"] is None else f"the checkpoint `{env['init_from']}`"
    measured = "Not measured on a test split."
    if numbers is not None:
        rows = [f"| {key.replace('_', ' ')} | {value:,.6g} |" for key, value in numbers.items() if value is not None]
        measured = "\n".join(["| on the test split | |", "| --- | --- |", *rows])
    training = {
        key: about[key]
        for key in ("agent", "seed", "data", "started", "git_commit", "pruning", "units")
        if key in about
    }
    return f"""---
library_name: {library}
tags: [layer-tying]
---
# {name} with {len(leaders(tying))} of {len(tying)} layers independent

{unique:,} parameters, {unique / conventional:.0%} of the {conventional:,} that it has with every layer independent.
{stored}

```python
{load}
```
{its_input}
## Tying

```
{replication_map_text(tying, network.kinds("within-kind", tied.only))}
```

## Training

Trained from {start} on `{data}`{tokens} while a controller tied its layers (Hay & Wolf, "Dynamic Layer Tying for
Parameter-Efficient Transformers", ICLR 2024).

```json
{json.dumps({**training, "env": env}, indent=2, default=str)}
```

## Results

{measured}
"""
