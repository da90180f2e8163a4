"""MobileLLM: a Llama whose config.json calls a tied output otherwise."""

from quatrain.checkpoint.families import llama
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    if fields.flag("layer_sharing"):
        expected = "false: layers that are computed twice are not implemented"
        raise fields.refusal("layer_sharing", expected)
    return {}


MOBILELLM = Family(
    hugging_face=HuggingFaceReading(
        model_type="mobilellm",
        defaults=llama.LLAMA.hugging_face.defaults,
        aliases={"share_embedding": "tie_word_embeddings"},
        params=_params,
    ),
)
