"""Mamba-2: a state space in every layer, and neither attention nor a feed-forward."""

from quatrain.checkpoint.families import state_spaces
from quatrain.checkpoint.families.family import NO_BIASES, Family, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields

# What its first models were trained on.
_CONTEXT = 2048


def _params(fields: Fields) -> Params:
    layers = fields.layer_count()
    heads, width = fields.integer("num_heads"), fields.integer("head_dim")
    return {
        # Of no attention.
        "n_heads": heads,
        "n_kv_heads": heads,
        "head_dim": width,
        "hidden_dim": heads * width,
        "no_rope_layer_interval": 1,
        "layer_types": ["mamba"] * layers,
        "no_feed_forward_layers": list(range(layers)),
        **state_spaces.params_of_heads(fields, "num_heads", "head_dim", "state_size"),
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    return state_spaces.tensors(stored, _params(fields), fields.source)


def _unstated_context(fields: Fields) -> tuple[str, ...]:
    if fields.integer("max_position_embeddings") != _CONTEXT:
        return ()
    return (
        f"Models of this model_type state no context length, so {_CONTEXT} tokens are assumed. If "
        "the model was trained with another context, state it as max_position_embeddings in "
        "config.json.",
    )


MAMBA2 = Family(
    hugging_face=HuggingFaceReading(
        model_type="mamba2",
        defaults={
            "num_heads": 128,
            "head_dim": 64,
            "state_size": 128,
            "vocab_size": 32768,
            "hidden_act": "silu",
            "layer_norm_epsilon": 1e-5,
            "n_groups": 8,
            "conv_kernel": 4,
            "use_conv_bias": True,
            "time_step_limit": state_spaces.DEFAULTS["time_step_limit"],
        },
        context=_CONTEXT,
        params=_params,
        rope=lambda fields: {},
        names={"model.norm_f": "norm", "norm": "attention_norm", **state_spaces.NAMES},
        on_hub={
            "backbone.": "model.",
            "model.embeddings.": "model.embed_tokens.",
            ".mixer.": ".mamba.",
        },
        tensors=_tensors,
        biases=NO_BIASES,
        notes=_unstated_context,
    ),
)
