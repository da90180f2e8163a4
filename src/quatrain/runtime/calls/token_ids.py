"""Token ids are held against a model's table before it looks them up: a GPU and ExecuTorch read
what lies behind the table otherwise."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from quatrain.errors import InputError
from quatrain.program import VulkanGraph

# The argument that has a row per token; int4 weights shared with a linear may have more.
_ROWS_OF = {"aten.embedding": "weights", "et_vk.embedding_q4gsw": "weight_scales"}


def table_rows(graph: VulkanGraph) -> dict[int, int]:
    """The rows of the table that a Vulkan program looks each of its values of token ids up in."""
    return {
        operator.named_args["indices"]: graph.tensor(operator.named_args[rows]).shape[0]
        for operator in graph.operators
        if (rows := _ROWS_OF.get(operator.kind))
    }


def check_token_ids(
    ids: torch.Tensor | np.ndarray | Sequence[int],
    vocab_size: int,
    text_of: Callable[[int], str | None] | None = None,
) -> None:
    """Refuse, with `InputError`, ids beyond a table of `vocab_size` rows.

    `text_of`: the text of an id, if a tokenizer made it.
    """
    array = np.asarray(ids)
    wrong = array[(array < 0) | (array >= vocab_size)]
    if not wrong.size:
        return
    token = int(wrong[0])
    text = text_of(token) if text_of else None
    named = "" if text is None else f" ({text!r})"
    advice = (
        ""
        if text is None
        else (
            "; the tokenizer has tokens that the model does not have: leave that one out (and "
            "--chat if the chat template writes it), or give the model's own tokenizer with "
            "--tokenizer"
        )
    )
    raise InputError(
        f"token id {token}{named} is not in the vocabulary, 0 to {vocab_size - 1}{advice}"
    )
