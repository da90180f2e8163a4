"""Handles an output layer that is stored although config.json says that it is tied."""

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.files.memory_map import was_read

_EMBEDDING, _OUTPUT = "model.embed_tokens.", "lm_head."
_ROWS_AT_ONCE = 1024


def with_embedding(stored: LazyTensors) -> LazyTensors:
    """`stored`, of a model whose output is said to be tied, its one table called the embedding: of
    the two names safetensors' `save_model` keeps the first by the alphabet."""
    embedding, output = (f"{name}weight" for name in (_EMBEDDING, _OUTPUT))
    if embedding in stored or output not in stored:
        return stored
    return stored.renamed({name: embedding if name == output else name for name in stored})


def without_tied_output(stored: LazyTensors) -> tuple[LazyTensors, tuple[str, ...]]:
    """(`stored`, of a model whose output is said to be tied, without an output layer that equals
    the embedding; a note if it differs, in which case it is used, as in transformers 5). Reads both
    if both are there, with the tensors of a quantizer."""
    output = sorted(name for name in stored if name.startswith(_OUTPUT))
    if not output:
        return stored, ()
    if all(_equals_embedding(name, stored) for name in output):
        return stored.without(output), ()
    return stored, (
        f"config.json says that the output layer is tied to the embedding, but {output[-1]} holds "
        "other values: they are used, as in transformers (tie_word_embeddings: false would say "
        "so).",
    )


def _equals_embedding(name: str, stored: LazyTensors) -> bool:
    """Whether the output layer's tensor `name` is the embedding's of the same kind."""
    embedding = stored.stored.get(name.replace(_OUTPUT, _EMBEDDING, 1))
    return embedding is not None and _equal(embedding, stored.stored[name])


def _equal(embedding: StoredTensor, output: StoredTensor) -> bool:
    floating = embedding.dtype.is_floating_point and output.dtype.is_floating_point
    if embedding.shape != output.shape or not (embedding.dtype == output.dtype or floating):
        return False
    a, b = (torch.atleast_1d(table.load()) for table in (embedding, output))
    for first in range(0, len(a), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        # Adapters are trained, and saved, in a wider type than their model.
        if not torch.equal(*(some[rows].float() if floating else some[rows] for some in (a, b))):
            return False
        was_read(2 * a[rows].nbytes)
    return True
