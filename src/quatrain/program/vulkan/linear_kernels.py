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

# Why a dynamic linear computes some groups wrongly, for people.
WRONG_GROUP_SUMS = (
    "8da4w prefill, of two rows or more, is wrong on every GPU with groups above 128: the kernel "
    "that sums the activations of a group counts some twice"
)


def group_sums_are_right(group_size: int) -> bool:
    """Whether a dynamic linear's calls of two rows or more compute groups of that size rightly.

    The packing shader's 16 workers, 32 from groups of 128 on, take four activations each; where a
    group has more, a worker adds its sum to itself. Source: `runtime.defects.sum_multiplicity`.
    """
    return group_size <= 64 or group_size == 128


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
