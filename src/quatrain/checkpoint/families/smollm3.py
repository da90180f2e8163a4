"""SmolLM3: every fourth layer without rotary embedding."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import no_rope_interval, window_of_some
from quatrain.checkpoint.nth_layers import is_nth


def _params(fields: Fields) -> Params:
    interval = no_rope_interval(fields)
    without_rope = [is_nth(index, interval) for index in range(fields.layer_count())]
    return {"no_rope_layer_interval": interval} | window_of_some(fields, without_rope)


SMOLLM3 = Family(
    hugging_face=HuggingFaceReading(
        model_type="smollm3",
        defaults={
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 128256,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "mlp_bias": False,
            "rope_theta": 2000000.0,
            "no_rope_layer_interval": 4,
        },
        params=_params,
        tied=True,
    ),
    gguf=GgufReading(
        "smollm3", half_split=False, params=lambda metadata: {"no_rope_layer_interval": 4}
    ),
)
