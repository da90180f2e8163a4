"""Qwen 3 Next: a Qwen 3.5 MoE whose delta rules have all that they read of a key head in one
matrix, with dense layers between."""

import torch

from quatrain.checkpoint.families import qwen3_5_moe, qwen3_moe, weighed_experts
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.families.qwen3_5 import hugging_face as dense
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields, integer, refusal


def _params(fields: Fields, source: str) -> Params:
    experts = qwen3_moe.experts(fields, source)
    shared = weighed_experts.shared_params(fields, source) if experts else {}
    return dense.params(fields, source) | experts | shared


def _tensors(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    """Queries, keys, values and gate of a key head lie side by side, and so do what writes and what
    decays of its value heads."""
    keys, heads = (integer(fields, f"linear_num_{kind}_heads", source) for kind in ("key", "value"))
    each = heads // keys
    key, values = (
        integer(fields, "linear_key_head_dim", source),
        each * integer(fields, "linear_value_head_dim", source),
    )
    apart: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        before, is_mixed, kind = name.partition("in_proj_qkvz.")
        also_before, is_strength, also_kind = name.partition("in_proj_ba.")
        if is_mixed:
            q, k, v, z = _parts(tensor, name, keys, [key, key, values, values], source)
            apart[f"{before}in_proj_qkv.{kind}"] = _rows(tensor, torch.cat((q, k, v)))
            apart[f"{before}in_proj_z.{kind}"] = _rows(tensor, z)
        elif is_strength:
            b, a = _parts(tensor, name, keys, [each, each], source)
            apart[f"{also_before}in_proj_b.{also_kind}"] = _rows(tensor, b)
            apart[f"{also_before}in_proj_a.{also_kind}"] = _rows(tensor, a)
        else:
            apart[name] = tensor
    return qwen3_5_moe.tensors(LazyTensors(apart), fields, source)


def _parts(
    tensor: StoredTensor, name: str, heads: int, widths: list[int], source: str
) -> list[torch.Tensor]:
    """The rows of each part, which for each of `heads` are so many in turn."""
    rows = tensor.shape[0] if tensor.shape else 0
    if rows != heads * sum(widths):
        expected = f"{sum(widths)} rows for each of {heads} heads"
        raise refusal({name: f"[{rows}, ...]"}, name, expected, source)
    order = torch.arange(rows).view(heads, -1)
    return [part.flatten() for part in order.split(widths, dim=1)]


def _rows(tensor: StoredTensor, order: torch.Tensor) -> StoredTensor:
    shape = (len(order), *tensor.shape[1:])
    return StoredTensor(shape, tensor.dtype, lambda: tensor.load()[order])


QWEN3_NEXT = Family(
    hugging_face=HuggingFaceReading(
        model_type="qwen3_next",
        defaults={
            **dense.DEFAULTS,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "decoder_sparse_step": 1,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "norm_topk_prob": True,
        },
        params=_params,
        rope=dense.rope,
        names=qwen3_5_moe.NAMES,
        tensors=_tensors,
        unused=dense.predicts_further,
    ),
)
