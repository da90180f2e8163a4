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


def _params(fields: Fields) -> Params:
    for name, (neutral, expected) in _NONE_OF.items():
        if fields.get(name) not in neutral:
            raise fields.refusal(name, expected)
    return {
        "embedding_scale_factor": fields.number("scale_emb"),
        "residual_multiplier": fields.number("scale_depth") / fields.layer_count() ** 0.5,
        "logits_scaling": fields.integer("hidden_size") / fields.number("dim_model_base"),
    }


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
    """Files of 2024 have no multipliers, which llama.cpp fixed then: those of the 1B and 2B."""
    width, layers = metadata.count("embedding_length"), metadata.layer_count()
    return {
        "embedding_scale_factor": metadata.decimal("embedding_scale", 12.0),
        "residual_multiplier": metadata.decimal("residual_scale", 1.4 / layers**0.5),
        "logits_scaling": metadata.decimal("logit_scale", width / 256),
    }


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
