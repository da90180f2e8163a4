"""Llama 2, 3, 3.1, 3.2 and SmolLM2; the other families are described by their differences from
it."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    MetaReading,
    Params,
    sizes,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart
from quatrain.errors import InputError

# Meta's params.json of Llama 3.1 and 3.2 both have only `use_scaled_rope`, for a factor of 8 and of
# 32. Their widths tell them apart: those of 3.2's 1B and 3B, which a pruned Llama Guard also has,
# and 4096 and up.
_LLAMA_32_WIDTHS = (2048, 3072)


def _params(fields: Fields) -> Params:
    if fields.flag("use_sliding_window") and fields.get("sliding_window") is not None:
        raise InputError(
            f"{fields.source}: sliding_window is {fields['sliding_window']}, but Llama models "
            "have no sliding window; the model_type may be wrong"
        )
    return {}


def _gguf_params(metadata: GgufMetadata) -> Params:
    mixture = metadata.number("expert_count", 0) > 0
    experts = weighted_experts.gguf_params(metadata, normalized=True) if mixture else {}
    return metadata.window_of_all() | experts


def _meta_defaults(params: Params) -> Params:
    if params.get("use_scaled_rope") is not True:
        return {}
    return {"rope_scale_factor": 32 if params.get("dim") in _LLAMA_32_WIDTHS else 8}


def _queries_keys_and_values(stored: LazyTensors, params: Params, source: str) -> LazyTensors:
    """`stored` with what gpt-fast has in one apart: as many queries as the output reads."""
    fused = next((name for name in stored if name.endswith(".attention.wqkv.weight")), None)
    output = stored.stored.get(fused.replace("wqkv", "wo")) if fused else None
    if fused is None or output is None:
        return stored
    queries = output.shape[-1]
    keys = (stored.stored[fused].shape[0] - queries) // 2
    return rows_apart(stored, {"wqkv": {"wq": queries, "wk": keys, "wv": keys}}, source)


LLAMA = Family(
    hugging_face=HuggingFaceReading(
        model_type="llama",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 32000,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "mlp_bias": False,
            "rope_theta": 10000.0,
        },
        sizes=sizes(4096, 11008, 32),
        params=_params,
    ),
    # GGUF also calls a Mistral a llama, with a window in every layer, and a Mixtral, with experts.
    gguf=GgufReading(
        "llama",
        half_split=False,
        params=_gguf_params,
        names=weighted_experts.GGUF_NAMES,
    ),
    meta=MetaReading(defaults=_meta_defaults, tensors=_queries_keys_and_values),
)
