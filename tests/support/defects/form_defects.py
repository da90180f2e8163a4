"""Operators in a form that a phone's runtime refuses, or computes as another, beside ones that it
takes. Each form was run on ExecuTorch's runtime."""

import torch
from tests.support.defects import load_checks
from tests.support.defects.attention_forms import ATTENTION_FORMS
from tests.support.defects.one_operator import FALSE, NULL, TRUE, Make, T, call, ints, number
from tests.support.defects.size_defects import converted
from tests.support.defects.static_int8_forms import STATIC_INT8_FORMS

EPS, NO_MOMENTUM = ("double", 1e-5), ("double", 0.1)


_EIGHT = T((8,), constant=True)
_DEPTHWISE = {"groups": 8}


def image(*shape: int, **more: str) -> T:
    return T(shape, **{"layout": "channels_packed", **more})  # type: ignore


def weights(*shape: int) -> T:
    return T(shape, constant=True)


def convolution(
    weight: tuple[int, ...], x: tuple[int, ...] = (1, 8, 9, 9), stride: int = 1, padding: int = 0,
    dilation: int = 1, transposed: bool = False, groups: int = 1, **more: str,
) -> Make:  # fmt: skip
    places = len(weight) - 2
    options = [[one] * places for one in (stride, padding, dilation)]
    rest = transposed, [0] * places, groups
    empty = (torch.empty(shape, device="meta") for shape in (x, weight))
    made = torch.ops.aten.convolution(*empty, None, *options, *rest)
    stated = (*(ints(*each) for each in options), ("bool", transposed), ints(*rest[1]))
    signal, out = image(*x, **more), image(*made.shape, **more)
    args = signal, weights(*weight), NULL, *stated, number(groups)
    return call("aten.convolution.default", *args, out)


def reduced(
    name: str, x: tuple[int, ...], dims: tuple[int, ...], out: tuple[int, ...], **more: str
) -> Make:
    keep = ("bool", len(out) == len(x))
    tail = () if name in ("amax.default", "argmax.default") else (NULL,)
    along = number(dims[0]) if name == "argmax.default" else ints(*dims)
    return call(f"aten.{name}", T(x, **more), along, keep, *tail, T(out, **more))  # type: ignore


def variance_in_half(storage: str) -> Make:
    shapes = (1, 3, 2048), (-1,), (1, 3, 1)
    return reduced("var.dim", *shapes, storage=storage, dtype="float16")


def layer_norm(*over: int, weight: T | tuple = _EIGHT) -> Make:
    x = T((2, 4, 8))
    rows = T((*x.shape[: -len(over)], *(1 for _ in over)))
    made = [x, rows, rows]
    return call("aten.native_layer_norm.default", x, ints(*over), weight, _EIGHT, EPS, made)


def batch_norm(*shape: int, layout: str = "channels_packed") -> Make:
    x, each = image(*shape, layout=layout), [weights(4)] * 4
    made = [x, T((0,)), T((0,))]
    name = "aten._native_batch_norm_legit_no_training.default"
    return call(name, x, *each, NO_MOMENTUM, EPS, made)


def group_norm(storage: str, *shape: int, layout: str = "width_packed") -> Make:
    x, mean = image(*shape), T((1, 2), storage=storage, layout=layout)
    sizes = (number(one) for one in (1, 8, 20, 2))
    made = [x, mean, mean]
    return call("aten.native_group_norm.default", x, _EIGHT, _EIGHT, *sizes, EPS, made)


def pool(stride: tuple[int, ...], **more: str) -> Make:
    x, none = image(1, 3, 8, 8, **more), ints(0, 0)
    rest = (none, FALSE, TRUE, NULL)
    name = "aten.avg_pool2d.default"
    return call(name, x, ints(2, 2), ints(*stride), *rest, image(1, 3, 4, 4, **more))


def flipped(x: str, out: str) -> Make:
    """From a texture of one layout to one of another."""
    shape = (1, 6, 5, 9)
    return call("aten.flip.default", image(*shape, layout=x), ints(1), image(*shape, layout=out))


def priors(x: str, out: str) -> Make:
    given, made = image(1, 3, 4, 5, layout=x), T((20, 2), layout=out)
    return call("et_vk.grid_priors.default", given, number(8), ("double", 0.5), made)


def sampled(padding_mode: int, grid_layout: str = "width_packed") -> Make:
    grid, out = T((1, 4, 5, 2), storage="buffer", layout=grid_layout), image(1, 3, 4, 5)
    options = (number(0), number(padding_mode), TRUE)
    return call("aten.grid_sampler_2d.default", image(1, 3, 8, 8), grid, *options, out)


def gather(dim: int) -> Make:
    x, index = T((1, 8, 4)), T((1, 8, 2), "int32")
    return call("aten.gather.default", x, number(dim), index, FALSE, T((1, 8, 2)))


def linear(*shape: int, constant: bool = True) -> Make:
    out = T((*shape[:-1], 4))
    return call("aten.linear.default", T(shape), T((4, shape[-1]), constant=constant), NULL, out)


def chosen(storage: str) -> Make:
    x, index = T((7, 8), storage=storage), T((3,), "int32", storage)
    return call("aten.index.Tensor", x, [index], T((3, 8), storage=storage))


def enlarged(height: int, width: int) -> Make:
    x, out = image(1, 3, 4, 5), image(1, 3, height, width)
    return call("aten.upsample_nearest2d.vec", x, ints(height, width), NULL, out)


def addmm(*bias: int, storage: str = "buffer") -> Make:
    parts = (T(shape, storage=storage) for shape in (bias, (4, 8), (8, 4)))
    one = number(1)
    return call("aten.addmm.default", *parts, one, one, T((4, 4), storage=storage))


def divided(mode: str | None, dtype: str = "float32") -> Make:
    x = T((2, 4), dtype)
    return call("aten.div.Tensor_mode", x, x, ("string", mode) if mode else NULL, x)


def power(exponent: T | tuple, dtype: str = "float32") -> Make:
    x = T((2, 4), dtype)
    return call("aten.pow.Tensor_Scalar", x, exponent, x)


def scalar(dtype: str) -> Make:
    return call("aten.scalar_tensor.default", number(7), *(NULL,) * 4, T((), dtype))


def repeated(dim: int) -> Make:
    x, out = T((2, 3, 4, 8)), T((2, 6, 4, 8))
    return call("aten.repeat_interleave.self_int", x, number(2), number(dim), NULL, out)


def ordered(storage: str, dtype: str = "int32") -> Make:
    x, out = T((2, 4), storage=storage), T((2, 4), dtype, storage)
    name = "dim_order_ops._to_dim_order_copy.default"
    return call(name, x, *(NULL,) * 4, FALSE, ints(0, 1), out)


def of_types(name: str, first: str, second: str, out: str, *more: tuple) -> Make:
    x, y = T((2, 4), first), T((2, 4), second)
    return call(f"aten.{name}", x, y, *more, T((2, 4), out))


def filled(dtype: str) -> Make:
    return call("aten.full_like.default", T((2, 4)), number(1), *[NULL] * 5, T((2, 4), dtype))


def by_condition(condition: str) -> Make:
    return call("aten.where.self", T((2, 4), condition), *[T((2, 4))] * 3)


def reshaped(dtype: str, as_dtype: str) -> Make:
    return call("aten.view_copy.default", T((2, 4), dtype), ints(4, 2), T((4, 2), as_dtype))


def int8_linear(*shape: int) -> Make:
    kernel, scales = T((4, shape[-1]), "int8", constant=True), T((4,), constant=True)
    return call("aten._weight_int8pack_mm.default", T(shape), kernel, scales, T((*shape[:-1], 4)))


def int4_linear(inputs: int, outputs: int, batches: int = 1) -> Make:
    """Weight-only, with a scale for each channel."""
    x, out = T((batches, 5, inputs)), T((batches, 5, outputs))
    kernel = T((outputs, inputs // 2), "uint8", constant=True)
    return call("et_vk.linear_qcs4w.default", x, kernel, T((outputs,), constant=True), out)


def joined(*tensors: T) -> Make:
    return call("aten.cat.default", list(tensors), number(0), T((4, 4)))


def softmax(dim: tuple) -> Make:
    return call("aten._softmax.default", T((2, 8)), dim, FALSE, T((2, 8)))


def cut(step: tuple) -> Make:
    bounds = number(1), NULL, NULL, step
    return call("aten.slice_copy.Tensor", T((2, 8)), *bounds, T((2, 8)))


def scales(least: tuple, most: tuple) -> Make:
    made = [T((1, 5)), T((1, 5), "int8")]
    stated = NULL, ints(1, 1, 8), NULL, least, most, *(NULL,) * 4
    return call("torchao.choose_qparams_affine.default", T((1, 5, 8)), *stated, made)


_FORMS: list[tuple[str, Make, Make]] = [
    ("argument-missing", softmax(NULL), softmax(number(-1))),
    ("argument-missing", cut(NULL), cut(number(1))),
    ("argument-missing", scales(number(-128), NULL), scales(NULL, NULL)),
    ("argument-missing", pool(()), pool((2, 2))),
    ("argument-missing", layer_norm(8, weight=NULL), layer_norm(8)),
    ("argument-missing", of_types("add.Tensor", *("float32",) * 3, NULL),
     of_types("add.Tensor", *("float32",) * 3, number(1))),
    ("argument-missing", divided(None), divided("floor")),
    ("weights-computed", linear(2, 8, constant=False), linear(2, 8)),
    ("weights-computed", load_checks.linear(8, constant=False), load_checks.linear(8)),
    ("convolution-form", convolution((8, 8, 3, 3), (2, 8, 9, 9)), convolution((8, 8, 3, 3))),
    ("convolution-form", convolution((8, 8, 3, 3), transposed=True, dilation=2),
     convolution((8, 8, 3, 3), dilation=2)),
    ("convolution-form", convolution((8, 1, 2, 2), stride=2, **_DEPTHWISE),
     convolution((8, 1, 3, 3), stride=2, **_DEPTHWISE)),
    ("convolution-form", convolution((8, 8, 3), (1, 8, 9), layout="width_packed"),
     convolution((8, 8, 3), (1, 8, 9))),
    ("convolution-form", convolution((8, 8, 3), (1, 8, 9), layout="height_packed"),
     convolution((8, 8, 1), (1, 8, 9), layout="height_packed")),
    ("convolution-form", convolution((8, 4, 1), (1, 8, 9), groups=2, layout="height_packed"),
     convolution((8, 8, 1), (1, 8, 9), layout="height_packed")),
    ("convolution-groups", convolution((8, 8, 1), (1, 8, 9), stride=2, layout="height_packed"),
     convolution((8, 8, 1), (1, 8, 9), layout="height_packed")),
    ("convolution-groups", convolution((8, 2, 3, 3), groups=4),
     convolution((8, 4, 3, 3), groups=2)),
    ("convolution-groups", convolution((8, 4, 1, 1), groups=2),
     convolution((8, 1, 1, 1), **_DEPTHWISE)),
    ("convolution-groups", convolution((8, 4, 3, 3), groups=2, transposed=True),
     convolution((8, 8, 3, 3), transposed=True)),
    ("convolution-groups", convolution((8, 1, 7, 7), padding=3, **_DEPTHWISE),
     convolution((8, 1, 7, 7), **_DEPTHWISE)),
    ("convolution-groups", convolution((8, 8, 3), (1, 8, 9), transposed=True),
     convolution((8, 2, 3), (1, 8, 9), groups=4)),
    ("reduction-form", reduced("sum.dim_IntList", (3, 7, 10), (1,), (3, 1, 10), storage="buffer"),
     reduced("sum.dim_IntList", (3, 7, 10), (-1,), (3, 7, 1), storage="buffer")),
    ("reduction-form", reduced("mean.dim", (1, 6, 7, 10), (2, 3), (1, 6, 1, 1)),
     reduced("mean.dim", (1, 6, 7, 10), (2, 3), (1, 6, 1, 1), layout="channels_packed")),
    ("reduction-form", reduced("var.dim", (1, 6, 7, 10), (2, 3), (1, 6, 1, 1)),
     reduced("mean.dim", (1, 6, 7, 10), (2, 3), (1, 6, 1, 1), layout="channels_packed")),
    ("reduction-form", reduced("mean.dim", (2, 6, 7, 10), (1,), (2, 1, 7, 10)),
     reduced("mean.dim", (1, 6, 7, 10), (1,), (1, 1, 7, 10))),
    ("reduction-form", reduced("argmax.default", (3, 7, 10), (-1,), (3, 7, 1)),
     reduced("argmax.default", (3, 7, 10), (-1,), (3, 7, 1), storage="buffer")),
    ("reduction-without-keepdim", reduced("amax.default", (3, 7, 10), (-1,), (3, 7)),
     reduced("amax.default", (3, 7, 10), (-1,), (3, 7, 1))),
    ("reduction-without-keepdim", reduced("mean.dim", (3, 7, 10), (1,), (3, 10)),
     reduced("mean.dim", (1, 7, 10), (1,), (1, 10))),
    ("reduction-without-keepdim", reduced("var.dim", (3, 7, 10), (-1,), (3, 7), storage="buffer"),
     reduced("mean.dim", (3, 7, 10), (-1,), (3, 7), storage="buffer")),
    ("reduction-without-keepdim",
     reduced("var.dim", (1, 6, 7, 10), (1,), (1, 1, 7, 10), storage="buffer"),
     reduced("mean.dim", (3, 7, 10), (-1,), (3, 7), storage="buffer")),
    ("layer-norm-half-sums", variance_in_half("buffer"), variance_in_half("texture3d")),
    ("norm-form", layer_norm(4, 8), layer_norm(8)),
    ("norm-form", batch_norm(2, 4, 8), batch_norm(2, 4, 8, 8)),
    ("norm-form", group_norm("texture3d", 1, 8, 4, 5), group_norm("buffer", 1, 8, 4, 5)),
    ("gather-from-the-end", gather(-1), gather(2)),
    ("norm-form", group_norm("buffer", 1, 8, 4, 5, layout="height_packed"),
     group_norm("buffer", 1, 8, 4, 5, layout="channels_packed")),
    ("grid-sampler-form", sampled(0), sampled(1)),
    ("grid-sampler-form", sampled(1, "channels_packed"), sampled(1)),
    ("layout-not-channels-packed", batch_norm(1, 4, 8, 8, layout="width_packed"),
     batch_norm(1, 4, 8, 8)),
    ("layout-not-channels-packed", pool((2, 2), storage="buffer"), pool((2, 2))),
    ("layout-not-channels-packed", flipped("channels_packed", "height_packed"),
     flipped("channels_packed", "channels_packed")),
    ("layout-not-channels-packed", priors("channels_packed", "width_packed"),
     priors("width_packed", "channels_packed")),
    ("linear-batches", linear(2, 3, 4, 8), linear(1, 3, 4, 8)),
    ("linear-batches", int8_linear(2, 5, 8), int8_linear(1, 5, 8)),
    ("qcs4w-form", int4_linear(64, 100), int4_linear(64, 32)),
    ("qcs4w-form", int4_linear(64, 32, batches=2), int4_linear(60, 32)),
    ("index-in-textures", chosen("texture3d"), chosen("buffer")),
    ("upsample-uneven", enlarged(7, 11), enlarged(8, 10)),
    ("addmm-column", addmm(4, 1), addmm(1, 4)),
    ("addmm-column", addmm(4, 1), addmm(4, 1, storage="texture3d")),
    ("division-rounding", divided("trunc"), divided("floor")),
    ("division-rounding", divided("floor", "int32"), divided("trunc", "int32")),
    ("power", power(T((2, 4))), power(("double", 3.0))),
    ("power", power(number(2), "int32"), power(number(1), "int32")),
    ("scalar-integer", scalar("int32"), scalar("float32")),
    ("repeat-interleave", repeated(0), repeated(1)),
    ("repeat-interleave", repeated(3), repeated(2)),
    ("dim-order-in-textures", ordered("texture3d"), ordered("buffer")),
    ("dim-order-in-textures", ordered("buffer", "bool"), ordered("buffer")),
    ("to-copy-in-buffers", converted("float32", "buffer"), converted("float32")),
    ("to-copy-in-buffers", converted("float16", "buffer"), converted("int32", "buffer")),
    ("types-differ", of_types("mul.Tensor", "int32", "float32", "float32"),
     of_types("mul.Tensor", *("float32",) * 3)),
    ("types-differ", of_types("le.Tensor", "float32", "int32", "bool"),
     of_types("le.Tensor", "float32", "float32", "bool")),
    ("types-differ", of_types("le.Tensor", *("float32",) * 3),
     of_types("le.Tensor", "float32", "float32", "bool")),
    ("types-differ", by_condition("float32"), by_condition("bool")),
    ("types-differ", of_types("logical_and.default", "int32", "int32", "bool"),
     of_types("logical_and.default", *("bool",) * 3)),
    ("types-differ", reshaped("int32", "float16"), reshaped("bool", "uint8")),
    ("missing-shader", filled("int8"), filled("bool")),
    ("missing-shader", of_types("eq.Tensor", "int32", "int32", "bool"),
     of_types("eq.Tensor", "float32", "float32", "bool")),
    ("storage-mixed", joined(T((2, 4)), T((2, 4), storage="buffer")), sampled(1)),
]  # fmt: skip
_ALL_FORMS = (*_FORMS, *ATTENTION_FORMS, *STATIC_INT8_FORMS)
FORM_CASES: list[tuple[str, str, str | None, Make, Make]] = [
    (defect, "desktop", "1.5", has, lacks) for defect, has, lacks in _ALL_FORMS
]
