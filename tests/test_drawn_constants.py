"""What a network draws as it is made and keeps outside of its weights: runs go on with it, exports bring it along."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.adapters import adapted, draw
from tests.own_code import layer_tying, write
from tests.own_networks import TEXT
from tying_env.env import LayerTyingEnv
from tying_env.export import export_tied, load_tied
from tying_env.plugins import load_object
from tying_env.runs import load_run

# A tensor that is no buffer, and a buffer that is no state; what both are, only the generator knows.
NETWORK = TEXT.replace(
    "    def forward(self, ids):\n        x = self.embed(ids)\n",
    """        self.plain = torch.randn(width)
        self.register_buffer("noise", torch.randn(width), persistent=False)

    def forward(self, ids):
        x = self.embed(ids) + self.plain + self.noise
""",
)
SMALL = (
    "--tokenizer bytes --n-layer 3 --n-embd 8 --seq-len 8 --batch-size 2 --k 2 --total-steps 12 --validate-every 4 "
    "--validation-windows 4 --device cpu --test-windows 4 --agent random --seed 5"
)


def score(model: nn.Module, **batch: Any) -> torch.Tensor:
    with torch.no_grad():
        result: Any = model.eval()(**batch)
    return torch.as_tensor(getattr(result, "logits", result))


def test_a_run_goes_on_with_what_its_network_drew(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "net.py", NETWORK)
    write(tmp_path, "stopping.py", STOPPING)
    model, rest = ["--model", "net.py:make_network"], [*SMALL.split(), "--dataset", str(text_folder)]
    assert layer_tying(capsys, "run", *model, *rest, "--run-dir", "whole")[0] == 0
    assert layer_tying(capsys, "run", *model, *rest, "--callbacks", "stopping.py:Stop", "--run-dir", "part")[0] == 0
    assert layer_tying(capsys, "run", "--resume", "part", *model, "--callbacks")[0] == 0
    assert Path("part/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()
    # Its network read again computes what it was measured to compute.
    measured = [
        layer_tying(capsys, "evaluate", folder, *model, "--network", "final", "--split", "validation", "--windows", "4")
        for folder in ("whole", "part")
    ]
    assert measured[0][0] == 0 and measured[0][1].split()[-4:] == measured[1][1].split()[-4:]
    final = load_run("whole", "final", model="net.py:make_network").model
    with torch.random.fork_rng():
        torch.manual_seed(99)
        other = load_object("net.py:make_network", "a network")(_Sizes, vocab_size=256)
    assert not torch.equal(other.noise, final.noise)  # type: ignore[operator]
    # Taken home, the buffer comes along.
    assert layer_tying(capsys, "export", "whole", "home", "--network", "final", *model)[0] == 0
    loaded = load_tied("home", model=other)
    assert torch.equal(loaded.noise, final.noise)  # type: ignore[operator]


class _Sizes:
    n_embd, n_layer = 8, 3


STOPPING = """
from tying_agents.callbacks import Callback


class Stop(Callback):
    def decision_made(self, loop, record):
        if record["decision"] == 3:
            loop.stop("enough")
"""


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("kind", ["psoft", "frod"])
@pytest.mark.parametrize("dense", [False, True], ids=["tied", "dense"])
def test_adapters_that_keep_what_they_made_of_the_first_weights(kind: str, dense: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"total_steps": 20, "k": 2, "validate_every": 0}
    env = LayerTyingEnv(model=lambda: adapted(kind), batches=lambda rng: draw(kind, rng), **settings)
    env.reset(seed=7)
    env.step(env.action_space.sample())
    twin = LayerTyingEnv(model=lambda: adapted(kind), batches=lambda rng: draw(kind, rng), **settings)
    twin.load_state_dict(env.state_dict())
    ids = {"input_ids": torch.arange(6)[None]}
    expected = score(env.trainer.network.model, **ids)
    assert torch.equal(score(twin.trainer.network.model, **ids), expected)
    export_tied(env, tmp_path / "home", dense=dense)
    if not dense:
        assert torch.allclose(score(load_tied(tmp_path / "home", model=adapted(kind)), **ids), expected, atol=1e-6)
