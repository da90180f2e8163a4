"""The text model of PaddleOCR-VL: an ERNIE 4.5 that rotates halves, by three positions, which are
equal for text."""

from dataclasses import replace

from quatrain.checkpoint.families import ernie4_5, qwen
from quatrain.checkpoint.families.family import Family, GgufReading
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params

PADDLEOCR_VL = Family(
    hugging_face=replace(
        ernie4_5.ERNIE4_5.hugging_face,
        model_type="paddleocr_vl_text",
        params=lambda fields: {},
        rope=lambda fields: rope_params(qwen.of_one_position(fields)),
    ),
    gguf=GgufReading("paddleocr", half_split=True),
)
