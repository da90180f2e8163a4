"""The text model of HunYuan VL and HunYuan OCR: a HunYuan with a rotary embedding by several
positions, which are equal for text."""

from dataclasses import replace

from quatrain.checkpoint.families import hunyuan
from quatrain.checkpoint.families.family import Family, GgufReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_type

_DENSE = hunyuan.HUNYUAN.hugging_face
_OF_POSITIONS = ("mrope_section", "xdrope_section", "type", "rope_type")


def _rope(fields: Fields) -> Params:
    plain = {}
    for name in ("rope_scaling", "rope_parameters"):
        if stated := fields.object_of(name):
            kind = "dynamic" if rope_type(stated) == "xdrope" else rope_type(stated)
            plain[name] = {key: stated[key] for key in stated if key not in _OF_POSITIONS}
            plain[name] |= {"rope_type": kind}
    return hunyuan.alpha_rope(fields | plain)


HUNYUAN_VL = Family(
    hugging_face=replace(
        _DENSE,
        model_type="hunyuan_vl_text",
        rope=_rope,
        aliases={"attention_head_dim": "head_dim", "org_vocab_size": "vocab_size"},
        tied=True,
    ),
    gguf=GgufReading("hunyuan_vl", half_split=True, params=hunyuan.gguf_params),
)
