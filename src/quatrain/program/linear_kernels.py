"""The linears of Vulkan graphs: which operator computes in which scheme."""

from enum import StrEnum

from quatrain.int4 import Scheme


class OtherScheme(StrEnum):
    """What a linear computes in that is none of the int4 schemes, as `inspect` shows it."""

    FLOAT = "float"
    WEIGHT_ONLY_INT8 = "weight-only int8"
    STATIC_INT8 = "static int8"


LinearScheme = Scheme | OtherScheme

DYNAMIC_LINEAR, WEIGHT_ONLY_LINEAR = "et_vk.linear_dq8ca_q4gsw", "et_vk.linear_q4gsw"
# Gives the scale and zero point of each row that a dynamic linear reads.
CHOOSE_QPARAMS = "torchao.choose_qparams_affine"

# The linears with grouped int4 weights.
INT4_LINEARS = {DYNAMIC_LINEAR: Scheme.DYNAMIC_INT8, WEIGHT_ONLY_LINEAR: Scheme.WEIGHT_ONLY}

LINEAR_SCHEMES: dict[str, LinearScheme] = {
    **INT4_LINEARS,
    "aten.linear": OtherScheme.FLOAT,
    "aten.mm": OtherScheme.FLOAT,
    "aten.addmm": OtherScheme.FLOAT,
    "et_vk.linear_qcs4w": Scheme.WEIGHT_ONLY,  # int4, one scale per output channel
    "aten._weight_int8pack_mm": OtherScheme.WEIGHT_ONLY_INT8,
    "et_vk.linear_qcs8w": OtherScheme.WEIGHT_ONLY_INT8,
    "et_vk.linear_q8ta_q8csw": OtherScheme.STATIC_INT8,
}
