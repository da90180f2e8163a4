"""Qwen 3 Next: a Qwen 3.5 MoE whose delta rules have all that they read of a key head in one
matrix, with dense layers between."""

from dataclasses import replace

import torch

from quatrain.checkpoint.families import qwen3_5_moe, qwen3_moe, weighted_experts
from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.families.qwen3_5 import gguf as dense_gguf
from quatrain.checkpoint.families.qwen3_5 import hugging_face as dense
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import (
    alternating_rows,
    rows_by_head,
    with_rows,
)
from quatrain.errors import InputError


def _params(fields: Fields) -> Params:
    experts = qwen3_moe.experts(fields)
    shared = weighted_experts.shared_params(fields) if experts else {}
    return dense.params(fields) | experts | shared


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """Queries, keys, values and gate of a key head lie side by side, and so do what writes and what
    decays of its value heads."""
    keys, heads = (fields.integer(f"linear_num_{kind}_heads") for kind in ("key", "value"))
    key, value = (fields.integer(f"linear_{kind}_head_dim") for kind in ("key", "value"))
    each = heads // keys
    values = each * value
    apart: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        before, is_mixed, kind = name.partition("in_proj_qkvz.")
        also_before, is_strength, also_kind = name.partition("in_proj_ba.")
        if is_mixed:
            q, k, v, z = rows_by_head(tensor, name, keys, [key, key, values, values], fields.source)
            apart[f"{before}in_proj_qkv.{kind}"] = with_rows(tensor, torch.cat((q, k, v)))
            apart[f"{before}in_proj_z.{kind}"] = with_rows(tensor, z)
        elif is_strength:
            b, a = rows_by_head(tensor, name, keys, [each, each], fields.source)
            apart[f"{also_before}in_proj_b.{also_kind}"] = with_rows(tensor, b)
            apart[f"{also_before}in_proj_a.{also_kind}"] = with_rows(tensor, a)
        else:
            apart[name] = tensor
    return qwen3_5_moe.tensors(LazyTensors(apart), fields)


def _gguf_tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    """As `_tensors`, of a file in which what decays is as it is applied. Its first converters left
    queries, keys, values and gate in one matrix, later ones only what writes and what decays."""
    heads, keys = metadata.count("ssm.time_step_rank"), metadata.count("ssm.group_count")
    each, key = heads // keys, metadata.count("ssm.state_size")
    values = each * (metadata.count("ssm.inner_size") // heads)
    found: dict[str, GgufTensor] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.partition(".ssm_")
        if name.endswith(f".{dense_gguf.QUERIES}"):
            found |= dense_gguf.queries_and_gate(tensor, metadata)
        elif kind == "in.weight":
            q, k, v, z = _gguf_parts(tensor, metadata, keys, [key, key, values, values])
            found[f"{layer}.attn_qkv.weight"] = _gguf_rows(tensor, torch.cat((q, k, v)))
            found[f"{layer}.attn_gate.weight"] = _gguf_rows(tensor, z)
        elif kind == "ba.weight":
            b, a = _gguf_parts(tensor, metadata, keys, [each, each])
            found[f"{layer}.ssm_beta.weight"] = _gguf_rows(tensor, b)
            found[f"{layer}.ssm_alpha.weight"] = _gguf_rows(tensor, a)
        else:
            decays = f"ssm_{kind}" == dense_gguf.DECAY
            found[name] = dense_gguf.logarithm(tensor, metadata) if decays else tensor
    return weighted_experts.gguf_with_shared_gates(found)


def _gguf_parts(
    tensor: GgufTensor, metadata: GgufMetadata, heads: int, widths: list[int]
) -> list[torch.Tensor]:
    rows = tensor.shape[0]
    if rows != heads * sum(widths):
        raise InputError(
            f"{metadata.file.path}: {tensor.name} has {rows} rows, expected {heads * sum(widths)}"
        )
    return alternating_rows(rows, heads, widths)


def _gguf_rows(tensor: GgufTensor, order: torch.Tensor) -> GgufTensor:
    return replace(tensor, shape=(len(order), *tensor.shape[1:]), rows=order.numpy())


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
    gguf=GgufReading(
        "qwen3next",
        half_split=True,
        params=qwen3_5_moe.gguf_params,
        names=qwen3_5_moe.GGUF_NAMES,
        filters=dense_gguf.FILTERS,
        tensors=_gguf_tensors,
    ),
)
