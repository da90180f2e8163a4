"""Static int8 in a form that a phone's runtime refuses, or computes as another, beside one that it
takes. Each form was run on ExecuTorch's runtime."""

from tests.support.defects.load_checks import total
from tests.support.defects.one_operator import NULL, Make, T, call

_SCALED = (("double", 0.02), ("int", -17))
_WEIGHT, _EIGHT = T((8, 32), constant=True), T((8,), constant=True)
_SCALED_WEIGHTS = (_WEIGHT, _EIGHT, _EIGHT, *_SCALED, NULL)


def packed(*shape: int) -> T:
    """Integers of static int8, which lie in buffers whatever the others are in."""
    return T(shape, dtype="int8", storage="buffer", layout="int8_4h4w")


def quantized(*shape: int, dtype: str = "float32") -> Make:
    """As ExecuTorch's static int8 begins."""
    x = T(shape, dtype=dtype, layout="channels_packed")
    how = (*_SCALED, ("int", -128), ("int", 127), NULL)
    return call("quantized_decomposed.quantize_per_tensor.default", x, *how, packed(*shape))


def linear(*shape: int) -> Make:
    how = (*_SCALED, *_SCALED_WEIGHTS, ("string", "none"))
    return call("et_vk.q8ta_linear.default", packed(*shape), *how, packed(*shape[:-1], 8))


def linear_to_float() -> Make:
    """Of integers, as ExecuTorch exports it; the runtime would quantize floating point."""
    x = T((5, 32), dtype="int8")
    rest = (_WEIGHT, _EIGHT, _EIGHT, NULL, T((5, 8)))
    return call("et_vk.linear_q8ta_q8csw.default", x, *_SCALED, *rest)


def convolution(*shape: int) -> Make:
    one, none = ("int_list", (1, 1)), ("int_list", (0, 0))
    options = (one, one, none, one, ("int", 1), ("string", "none"))
    how = (*_SCALED, *_SCALED_WEIGHTS, *options)
    return call("et_vk.q8ta_conv2d_pw.default", packed(*shape), *how, packed(*shape))


def added(*b: int) -> Make:
    a = packed(1, 8, 6, 5)
    return call("et_vk.q8ta_add.default", a, packed(*b), *_SCALED * 3, ("double", 1.0), a)


# defect, a program that has it, one that does not
STATIC_INT8_FORMS = [
    ("storage-mixed", total(storage="buffer"), quantized(7, 32)),
    ("missing-shader", quantized(7, 32, dtype="float16"), quantized(7, 32)),
    ("missing-shader", linear_to_float(), linear(5, 32)),
    ("static-int8-broadcast", added(1, 8, 1, 1), added(1, 8, 6, 5)),
    ("static-int8-batches", linear(3, 5, 32), linear(1, 5, 32)),
    ("static-int8-batches", convolution(2, 8, 6, 5), convolution(1, 8, 6, 5)),
]
