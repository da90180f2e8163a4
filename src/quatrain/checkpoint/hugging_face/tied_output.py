"""An output layer that is stored although config.json says that it is the embedding."""

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.memory_map import was_read

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_ROWS_AT_ONCE = 1024


def without_tied_output(stored: LazyTensors) -> tuple[LazyTensors, tuple[str, ...]]:
    """(`stored`, of a model whose output is said to be tied, without an output layer that is the
    embedding once more; what there is to say of one that is not, which counts, as it does for
    transformers 5). Reads both where both are there."""
    if _OUTPUT not in stored:
        return stored, ()
    if _EMBEDDING in stored and _equal(stored):
        return stored.renamed({name: name for name in stored if name != _OUTPUT}), ()
    return stored, (
        f"config.json says that the output layer is tied to the embedding, but {_OUTPUT} holds "
        "other values: they are its weights, as transformers has it (tie_word_embeddings: false "
        "would say so).",
    )


def _equal(stored: LazyTensors) -> bool:
    embedding, output = stored.stored[_EMBEDDING], stored.stored[_OUTPUT]
    floating = embedding.dtype.is_floating_point and output.dtype.is_floating_point
    if embedding.shape != output.shape or not (embedding.dtype == output.dtype or floating):
        return False
    a, b = embedding.load(), output.load()
    for first in range(0, len(a), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        # Adapters are trained, and saved, in a wider type than their model.
        if not torch.equal(*(some[rows].float() if floating else some[rows] for some in (a, b))):
            return False
        was_read(2 * a[rows].nbytes)
    return True
