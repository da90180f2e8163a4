"""MiniCPM 1, 2 and 4: a Llama with Granite's multipliers, which follow from its depth and width."""

from typing import Any

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields

# Of what its code may have besides, the values under which it has none of it.
_NONE_OF: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_experts": ((None, 0), "0 or null: experts are not implemented for this family"),
    "mixer_types": ((None,), "null: layers without attention are not implemented for this family"),
}
_IN_GGUF = {
    "embedding_scale_factor": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}


def _params(fields: Fields) -> Params:
    for name, (neutral, expected) in _NONE_OF.items():
        if fields.get(name) not in neutral:
            raise fields.refusal(name, expected)
    embedding, depth = fields.number("scale_emb"), fields.number("scale_depth")
    base, width = fields.number("dim_model_base"), fields.integer("hidden_size")
    return multipliers(embedding, depth, base, fields.layer_count(), width)


def multipliers(embedding: float, depth: float, base: float, layers: int, width: int) -> Params:
    """Granite's, of `scale_emb`, `scale_depth` and `dim_model_base`."""
    return {
        "embedding_scale_factor": embedding,
        "residual_multiplier": depth / layers**0.5,
        "logits_scaling": width / base,
    }


def fixed_multipliers(metadata: GgufMetadata) -> Params:
    """Those that llama.cpp fixes for files without any: of MiniCPM 1B, 2B and 3 4B."""
    layers, width = metadata.layer_count(), metadata.count("embedding_length")
    return multipliers(12.0, 1.4, 256, layers, width)


def _notes(fields: Fields) -> tuple[str, ...]:
    sparse = fields.object_of("sparse_config")
    if not sparse:
        return ()
    length = sparse.get("dense_len")
    upto = f" up to {length} tokens (dense_len), and" if isinstance(length, int) else ""
    return (
        "config.json's sparse_config is not used: each token attends to all tokens before it, as "
        f"in the model's own code{upto} without that field.",
    )


def _gguf_params(metadata: GgufMetadata) -> Params:
    """Files of 2024 have no multipliers."""
    fixed = fixed_multipliers(metadata)
    return {name: metadata.decimal(_IN_GGUF[name], each) for name, each in fixed.items()}


MINICPM = Family(
    hugging_face=HuggingFaceReading(
        model_type="minicpm",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 32000,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "scale_emb": 1,
            "scale_depth": 1,
            "dim_model_base": 1,
        },
        params=_params,
        notes=_notes,
        tied=True,
        unnamed="MiniCPMForCausalLM",
    ),
    gguf=GgufReading("minicpm", half_split=False, params=_gguf_params),
)
