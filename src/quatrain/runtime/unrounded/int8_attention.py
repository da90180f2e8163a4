"""Attention over keys and values that a program keeps in int8, computed as if not rounded.

What each rounding to int8 takes away is kept beside the memory, by where the integers lie, and
given back where attention reads them: integers, scales and zero points are the program's own, so
that one in another's place shows, and no value is rounded to another integer than in the backbone.

Source: `extension/llm/custom_ops/op_sdpa.cpp` and `op_update_cache.cpp` of ExecuTorch.
"""

from collections.abc import Callable, Mapping

import torch

from quatrain.quiet import native_output_held_back
from quatrain.runtime.unrounded.errors import NotComputed, UnknownNode
from quatrain.runtime.unrounded.memory import MethodValues

Named = Mapping[str, int]  # which value each argument of a call is, by its name
QUANTIZED_ATTENTION = "llama.custom_quantized_sdpa.out"


def keep_taken(values: MethodValues, call: Named) -> None:
    """Behind `quantized_decomposed.quantize_per_token.out`: keep what it took away.

    Raises `UnknownNode` unless it is rounded to all integers of int8: what clips would be kept too.
    """
    least, most = values.read(call["quant_min"]), values.read(call["quant_max"])
    if (least, most) != (-128, 127):
        raise UnknownNode(f"int8 numbers from {least} to {most}, expected -128 to 127")
    scales, zeros = values.read(call["scales"]).float(), values.read(call["zero_points"])
    stored = (values.read(call["out"]).float() - zeros) * scales
    values.set_taken(call["out"], values.read(call["input"]) - stored)


def keep_taken_in_cache(values: MethodValues, call: Named) -> None:
    """Behind `llama.update_cache.out`: keep for the cache what was taken from what it is given."""
    taken = values.taken(call["value"])
    if taken is None:
        return
    taken = taken.reshape(values.read(call["value"]).shape)
    start, before = values.read(call["start_pos"]), values.taken(call["cache"])
    end, filled = start + taken.shape[1], 0 if before is None else before.shape[1]
    # Of tokens so far alone: a cache has room for many more.
    kept = torch.zeros(1, max(end, filled), *taken.shape[2:])
    if before is not None:
        kept[:, :filled] = before
    kept[:, start:end] = taken
    values.set_taken(call["cache"], kept)


BEHIND: dict[str, Callable[[MethodValues, Named], None]] = {
    "quantized_decomposed.quantize_per_token.out": keep_taken,
    "llama.update_cache.out": keep_taken_in_cache,
}


def attend(values: MethodValues, call: Named) -> torch.Tensor:
    """In place of `QUANTIZED_ATTENTION`: its result in float32, of its operands before they were
    rounded. Raises `NotComputed` if it is not known what rounding took from one."""
    said = ("start_pos", "attn_mask", "drpout_p", "is_causal", "scale")
    by_head = values.read(call["is_seq_at_dim_2"])
    q, k, v = (_unrounded(values, call, name) for name in ("query", "key", "value"))
    if by_head:
        q, k, v = (each.transpose(1, 2).contiguous() for each in (q, k, v))
    with native_output_held_back():  # it logs each call, because torch gives it no allocator
        result = torch.ops.llama.custom_sdpa.default(q, k, v, *(values.read(call[x]) for x in said))
    return result.transpose(1, 2) if by_head else result


def _unrounded(values: MethodValues, call: Named, name: str) -> torch.Tensor:
    of = f"{name[0]}_scales", f"{name[0]}_zero_points"
    scales, zeros = (values.read(call[each]) for each in of)
    taken = values.taken(call[name])
    if taken is None:
        raise NotComputed(f"attention to a {name} of int8 that is not rounded in this call")
    stored = (values.read(call[name]).float() - zeros) * scales
    if taken.numel() == stored.numel():
        return stored + taken.reshape(stored.shape)
    stored[:, : taken.shape[1]] += taken
    return stored
