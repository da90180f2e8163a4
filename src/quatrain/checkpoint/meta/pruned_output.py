"""An output layer for some tokens of the vocabulary, or tied to an embedding of some."""

import torch

from quatrain.backbone.config import BackboneConfig
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT
from quatrain.errors import InputError


def with_own_output(tensors: LazyTensors, config: BackboneConfig, source: str) -> LazyTensors:
    """`tensors`, with an output layer where its rows are not those of the embedding, in order.

    An embedding cut to `input_prune_map` has row r for one token, a tied output for another where
    `output_prune_map` says so. Raises `InputError` if a token that the output needs was cut.
    """
    table = tensors.stored.get(f"{EMBEDDING}.weight")
    if table is None or f"{OUTPUT}.weight" in tensors or not config.apply_output:
        return tensors
    if config.input_prune_map is None or table.shape[0] == config.vocab_size:
        return tensors
    row_of = {token: row for row, token in config.input_prune_map.items()}
    kept = config.output_prune_map
    tokens = list(range(config.vocab_size) if kept is None else kept.values())
    lost = [token for token in tokens if token not in row_of]
    if lost:
        raise InputError(
            f"{source}: {EMBEDDING}.weight is also the output layer, and is pruned by "
            f"input_prune_map, which has no row for token {lost[0]} of the output; give "
            f"{OUTPUT}.weight, or the whole table, or an output_prune_map without that token"
        )
    rows = [row_of[token] for token in tokens]
    if rows == list(range(table.shape[0])):
        return tensors
    return LazyTensors(tensors.stored | _output_of(tensors, EMBEDDING, rows))


def with_kept_output(tensors: LazyTensors, config: BackboneConfig) -> LazyTensors:
    """`tensors`, with the output layer of the rows that `output_prune_map` keeps, in its order,
    where what is stored, or the embedding that it is tied to, has all."""
    kept = config.output_prune_map
    name = OUTPUT if f"{OUTPUT}.weight" in tensors else EMBEDDING
    table = tensors.stored.get(f"{name}.weight")
    if kept is None or table is None or table.shape[0] != config.vocab_size:
        return tensors
    return LazyTensors(tensors.stored | _output_of(tensors, name, list(kept.values())))


def _output_of(tensors: LazyTensors, name: str, rows: list[int]) -> dict[str, StoredTensor]:
    """The output layer's tensors of those `rows` of the table `name`."""
    return {
        f"{OUTPUT}.{part}": _picked(tensors.stored[f"{name}.{part}"], rows)
        for part in ("weight", "scales", "zeros")
        if f"{name}.{part}" in tensors
    }


def _picked(table: StoredTensor, rows: list[int]) -> StoredTensor:
    return table.changed(lambda whole: whole[torch.tensor(rows)], (len(rows), *table.shape[1:]))
