"""A Transformer encoder over frames of speech, of BERT's blocks."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertEncoder


class SpeechEncoder(nn.Module):
    """Names the class of an utterance: frames, projected, with positions; blocks; the mean over frames; a classifier.

    The mean over frames is how wav2vec 2.0's classifiers in transformers read an utterance as well.

    Args:
        config: transformers' BertConfig of the blocks; `max_position_embeddings` is the frames it can read.
        features: F, of a frame.
        classes: to choose from.
    """

    def __init__(self, config: Any, features: int, classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(features, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.encoder = BertEncoder(config)
        self.classifier = nn.Linear(config.hidden_size, classes)
        for module in self.modules():  # as BERT's
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores of the classes, (B, classes).

        Args:
            frames: padded behind their ends with any finite numbers, (B, T, F).
            lengths: the frames of each utterance, (B,), whole numbers from 1 to T.
        """
        places = torch.arange(frames.shape[1], device=frames.device)  # (T,)
        inside = places < lengths[:, None]  # (B, T)
        projected = self.projection(frames.to(self.projection.weight.dtype))
        hidden = self.dropout(self.norm(projected + self.positions(places)))  # (B, T, D)
        hidden = self.encoder(hidden, attention_mask=inside[:, None, None]).last_hidden_state
        mean = (hidden * inside[..., None]).sum(1) / lengths[:, None].to(hidden.dtype)
        scores: Tensor = self.classifier(mean)
        return scores
