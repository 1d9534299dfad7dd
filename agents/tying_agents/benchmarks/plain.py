"""What a user would run instead: a GPT-2 and its training loop written as nanoGPT's are, in our own words.

Source: the architecture of Radford et al. 2019, the manner of karpathy/nanoGPT (model.py, train.py). Same sizes,
dropout, optimizer settings and clipping as the environment's; batches are drawn as nanoGPT draws them.

Shapes: B sequences, T tokens each, D width, h heads, V vocabulary.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tying_env.config import EnvConfig


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: EnvConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.n_head, config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D) for (B, T, D)."""
        b, t, d = x.shape
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(d, dim=2))
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)  # (B, h, T, D/h)
        out: Tensor = self.drop(self.out(y.transpose(1, 2).reshape(b, t, d)))
        return out


class PlainBlock(nn.Module):
    """A transformer block, norms first."""

    def __init__(self, config: EnvConfig) -> None:
        super().__init__()
        d = config.n_embd
        self.norm_1, self.norm_2, self.attention = nn.LayerNorm(d), nn.LayerNorm(d), Attention(config)
        self.up, self.down, self.drop = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, D) for (B, T, D)."""
        x = x + self.attention(self.norm_1(x))
        out: Tensor = x + self.drop(self.down(F.gelu(self.up(self.norm_2(x)))))
        return out


class PlainGPT(nn.Module):
    """GPT-2 with the embedding as its head."""

    def __init__(self, config: EnvConfig, vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.positions = (nn.Embedding(n, config.n_embd) for n in (vocab_size, config.seq_len))
        self.drop, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(config.n_embd)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layer))
        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                scale = (2 * config.n_layer) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of (B, T) ids and their next tokens, (B, T)."""
        x = self.drop(self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device)))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class PlainLoop:
    """nanoGPT's training loop."""

    def __init__(
        self,
        config: EnvConfig,
        vocab_size: int,
        tokens: npt.NDArray[np.uint16],
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.model = PlainGPT(config, vocab_size).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type == "cuda",  # as nanoGPT has it
        )
        self._config, self._tokens, self._rng, self._device = config, tokens, rng, device

    def step(self) -> float:
        """Train on one batch; return its loss."""
        config, device = self._config, self._device
        starts = self._rng.integers(len(self._tokens) - config.seq_len, size=config.batch_size)
        rows = np.stack([self._tokens[i : i + config.seq_len + 1].astype(np.int64) for i in starts])
        batch = torch.from_numpy(rows).to(device)
        loss = self.model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.item())
