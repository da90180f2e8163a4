"""A vocabulary that keeps some of its tokens: the maps from a table's rows to token ids."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig


def embedding_rows(config: BackboneConfig) -> int:
    """How many tokens the embedding has a row for."""
    return len(config.input_prune_map or ()) or config.vocab_size


def output_rows(config: BackboneConfig) -> int:
    """How many tokens the output layer has a row for."""
    return len(config.output_prune_map or ()) or config.vocab_size


def known_rows(config: BackboneConfig, ids: Sequence[int]) -> list[int]:
    """The rows of the embedding for those token `ids` that have one."""
    kept = config.input_prune_map
    if kept is None:
        return [token for token in ids if token < config.vocab_size]
    row_of = {token: row for row, token in kept.items()}
    return [row_of[token] for token in ids if token in row_of]


def kept_rows(
    tensor: torch.Tensor, prune_map: Mapping[int, int] | None, vocab_size: int
) -> torch.Tensor:
    """The rows of a table [vocab_size, ...] that `prune_map` (row to token id) keeps, in its order;
    a table that already has exactly those rows, and any table without a map, unchanged."""
    if prune_map is None or tensor.shape[0] != vocab_size:
        return tensor
    return tensor[torch.tensor([prune_map[row] for row in range(len(prune_map))])]


class ExpandLogits(nn.Module):
    """Logits of the tokens that were kept to logits of all, -inf for the rest.

    [1, kept] to [1, vocab_size]. Every token takes a column: its own, or one of -inf that is
    put behind the others. Tokens of a program keep their ids that way.
    """

    columns: torch.Tensor
    absent: torch.Tensor

    def __init__(self, prune_map: Mapping[int, int], vocab_size: int) -> None:
        super().__init__()
        columns = torch.full((vocab_size,), len(prune_map), dtype=torch.int64, device="cpu")
        for row, token in prune_map.items():
            columns[token] = row
        absent = torch.full((1, 1), -torch.inf, device="cpu")
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("absent", absent, persistent=False)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.cat((logits, self.absent), dim=-1).index_select(-1, self.columns)
