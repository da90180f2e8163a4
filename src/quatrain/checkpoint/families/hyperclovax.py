"""HyperCLOVA X SEED Think: a Granite 3 with norms after attention and feed-forward, whose logits
are multiplied where Granite's are divided."""

from quatrain.checkpoint.families import granite
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields

_GRANITE = granite.GRANITE.hugging_face


def _params(fields: Fields) -> Params:
    multiplier = fields.get("attention_multiplier")
    usual = fields.head_width() ** -0.5
    stated = fields | {"attention_multiplier": usual if multiplier is None else multiplier}
    normed = fields.flag("use_post_norm")
    return _GRANITE.params(stated) | {
        "logits_scaling": 1.0 / fields.number("logits_scaling"),
        "post_attention_norm": normed,
        "post_ffn_norm": normed,
    }


HYPERCLOVAX = Family(
    hugging_face=HuggingFaceReading(
        model_type="hyperclovax",
        defaults={
            name: value
            for name, value in _GRANITE.defaults.items()
            if name != "attention_multiplier"
        }
        | {"use_post_norm": True},
        params=_params,
        names={"post_norm1": "post_attention_norm", "post_norm2": "post_ffn_norm"},
    ),
)
