"""Programs that a release refuses to load, or has no shader for, beside ones that it takes."""

from dataclasses import replace
from pathlib import Path

from tests.support.defects.edited_methods import Edit, all_in_buffers, edited_method
from tests.support.defects.kernel_defects import embedding, int4_embedding, on_the_cpu, sigmoid
from tests.support.defects.one_operator import FALSE, NULL, Make, T, call
from tests.support.programs import GraphMaker

from quatrain.program import Tensor, open_program, write_program


def total(**more: str) -> Make:
    """The sum of two textures, one of which has `more`."""
    x = T((1, 8, 4))
    return call("aten.add.Tensor", x, T((1, 8, 4), **more), ("int", 1), x)


def halved(dtype: str) -> Make:
    """An RMS norm of float32 whose result is of that type."""
    x, weight = T((1, 8, 4)), T((4,), constant=True)
    return call("et_vk.rms_norm.default", x, weight, ("double", 1e-5), T((1, 8, 4), dtype))


def softmax(dim: int, *shape: int) -> Make:
    x = T(shape)
    return call("aten._softmax.default", x, ("int", dim), FALSE, x)


def chosen(indices: int) -> Make:
    x = T((4, 4, 8), storage="buffer")
    return call("aten.index.Tensor", x, [T((2,), "int32", "buffer")] * indices, x)


def turned(layout: str) -> Make:
    """Queries and keys rotated by tables, all in textures of that layout."""
    x, table = T((1, 8, 2, 16), layout=layout), T((8, 8), layout=layout)
    return call("et_vk.apply_rotary_emb.default", x, x, table, table, [x, x])


def norm(**more: str) -> Make:
    x = T((1, 8, 6), **more)
    return call("et_vk.rms_norm.default", x, T((6,), constant=True), ("double", 1e-5), x)


def linear(
    inputs: int, dynamic: bool = False, constant: bool = True, dtype: str = "float32",
    scales_in: str = "float32", bias_in: str = "", filled: int = 0,
) -> Make:  # fmt: skip
    """`filled`: the columns of its weights, where there are more than inputs."""
    packed = T((8, (filled or inputs) // 2), "uint8", constant=constant)
    x, weights = T((1, 8, inputs), dtype), packed
    row, scales = T((1, 8), dtype), T((1, 8), scales_in, constant=True)
    group, out = ("int", inputs), T((1, 8, 8), dtype)
    bias = T((8,), bias_in, constant=True) if bias_in else NULL
    if not dynamic:
        return call("et_vk.linear_q4gsw.default", x, weights, scales, group, bias, out)
    sums = T((1, 8), "int32", constant=True)
    name = "et_vk.linear_dq8ca_q4gsw.default"
    return call(name, x, row, row, weights, sums, scales, group, bias, out)


_ZERO_POINTS, _CACHE = T((1, 8), "int8"), T((1, 32, 2, 8))


def float_linear(layout: str) -> Make:
    """One whose result has that layout."""
    weights, out = T((8, 64), constant=True), T((1, 8, 8), layout=layout)
    return call("aten.linear.default", T((1, 8, 64)), weights, NULL, out)


def scales(x: T, block: tuple[int, ...], zeros: T = _ZERO_POINTS, of: str = "float32") -> Make:
    plain = (NULL, ("int_list", block), *(NULL for _ in range(7)))
    made = [T(x.shape[:-1], of), replace(zeros, shape=x.shape[:-1])]
    return call("torchao.choose_qparams_affine.default", x, *plain, made)


def told(edit: Edit) -> Make:
    """`scales` of what does not say where it lies, in a program that `edit` may tell it."""
    rows, zeros = T((1, 8, 64), storage="default"), T((1, 8), "int8", storage="default")

    def make(folder: Path) -> Path:
        return edited_method(scales(rows, (1, 1, 64), zeros)(folder), edit)(folder)

    return make


def rotary(rows: int, width: int = 8, storage: str = "texture3d") -> Make:
    x, table = T((1, 8, 2, 8), storage=storage), T((rows, width))
    name = "et_vk.apply_rotary_emb_hf.default"
    return call(name, x, x, table, table, ("int", 0), [x, x])


def attention(kind: str = "sdpa_with_kv_cache", cache: T = _CACHE, **more: object) -> Make:
    """8 tokens, 2 heads of 8; `more` changes the query's fields and the options."""
    fixed = {
        "attn_mask": NULL, "dropout_p": ("double", 0.0), "is_causal": ("bool", True),
        "scale": NULL,
    }  # fmt: skip
    options = [more.pop(name, usual) for name, usual in fixed.items()]
    q = T(**{"shape": (1, 8, 2, 8), **more})  # type: ignore
    new = [T((1, 8, 2, 8))] * 2 if kind == "sdpa_with_kv_cache" else []
    place = [("int", 0)] * (2 if new else 1)
    return call(f"{kind}.default", q, *new, cache, cache, *place, *options, q)  # type: ignore


def long_attention(tokens: int, storage: str = "buffer") -> Make:
    """Attention weights of 8 heads in float32 over a cache of `tokens`, as long as the call."""
    shape = (1, tokens, 8, 8)
    return attention(cache=T(shape, storage=storage), shape=shape, storage=storage)


def select(layout: str, index_layout: str = "channels_packed", constant: bool = False) -> Make:
    x = T((1, 8, 4), layout=layout)
    index = T((1,), "int32", layout=index_layout, constant=constant)
    out = T((1, 1, 4), layout=layout)
    return call("aten.index_select.default", x, ("int", 1), index, out)


def position(dtype: str, given: bool = True) -> Make:
    """A number read from a tensor: one that is `given`, or that is computed."""
    where = ("int", 0)
    make = call("et_vk.select_as_symint.default", T((1,), dtype), where, where, ("int", 0))

    def edited(folder: Path) -> Path:
        program = open_program(make(folder))
        program.vulkan.inputs += [program.vulkan.operators[0].args[0]] if given else []
        write_program(program, folder / "position.pte")
        return folder / "position.pte"

    return edited


def cat(dtype: str, layout: str = "width_packed") -> Make:
    """Two textures put together in one of that layout."""
    out = T((1, 8), dtype, layout=layout)
    return call("aten.cat.default", [T((1, 4), dtype)] * 2, ("int", 1), out)


def clamped(layout: str) -> Make:
    """A texture of that layout clamped into one that is width-packed."""
    x, bound = T((1, 8, 4), layout=layout), ("double", 1.0)
    return call("aten.clamp.default", x, NULL, bound, T((1, 8, 4)))


def reading(bias: T) -> Make:
    """A linear of textures with that bias."""
    weights, out = T((8, 64), constant=True), T((1, 8, 8))
    return call("aten.linear.default", T((1, 8, 64)), weights, bias, out)


def qcs4w(folder: Path) -> Path:
    x, weights = T((1, 8), "float16"), T((8, 4), "uint8", constant=True)
    row = T((8,), "float16", constant=True)
    return call("et_vk.linear_qcs4w.default", x, weights, row, x)(folder)


def gelu(approximate: str) -> Make:
    return call("aten.gelu.default", T((1, 4)), ("string", approximate), T((1, 4)))


def convolution(channels: int) -> Make:
    weight = T((channels, 4, 3, 3), constant=True)
    rest = (NULL,) * 7
    return call("aten.convolution.default", T((1, 4, 8, 8)), weight, *rest, T((1, 4, 8, 8)))


def mean(rows: int, storage: str = "texture3d", dtype: str = "float32") -> Make:
    x, out = T((1, rows, 8), storage=storage), T((1, rows, 1), dtype, storage)
    dims = ("int_list", (-1,))
    return call("aten.mean.dim", x, dims, ("bool", True), NULL, out)


def packed(dtype: str) -> Make:
    """A constant of float16 as that type."""
    return call("et_vk.prepack.default", T((4, 8), "float16", constant=True), T((4, 8), dtype))


def handed_over(dtype: str, given_as: str) -> Make:
    """A tensor that a call hands over in another type, and that is given back as it is."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.add(Tensor(dtype, (4, 8), storage="buffer", staging_dtype=given_as))
        maker.graph.inputs.append(x)
        return maker.save(folder / "handed_over.pte", [x])

    return make


ROWS = T((1, 8, 64))

# defect, the GPU and runtime to ask about, a program that has it, one that does not
LOAD_CHECK_CASES: list[tuple[str, str, str | None, Make, Make]] = [
    ("softmax-past-the-end", "desktop", "1.5", softmax(-2, 1, 3, 8), softmax(-1, 1, 3, 2)),
    ("softmax-past-the-end", "desktop", "1.5", softmax(1, 1, 3, 8), softmax(1, 1, 4, 8)),
    ("softmax-of-batches", "desktop", "1.5", softmax(1, 2, 4, 8, 4), softmax(1, 1, 4, 8, 4)),
    ("softmax-of-batches", "desktop", "1.5", softmax(0, 1, 4, 8, 4), softmax(0, 4, 8, 4)),
    ("index-several", "desktop", "1.5", chosen(2), chosen(1)),
    ("types-differ", "desktop", "1.5", halved("float16"), halved("float32")),
    ("types-differ", "desktop", "1.5", mean(4, dtype="float16"), mean(4)),
    ("types-differ", "desktop", "1.5", linear(64, True, scales_in="float16"), linear(64, True)),
    ("types-differ", "desktop", "1.5", linear(64, True, dtype="float16"),
     linear(64, dtype="float16")),
    ("types-differ", "desktop", "1.5", linear(64, bias_in="float16"),
     linear(64, bias_in="float32")),
    ("types-differ", "desktop", "1.5", scales(T((1, 8, 64)), (1, 1, 64), of="float16"),
     scales(T((1, 8, 64)), (1, 1, 64))),
    ("types-differ", "desktop", "1.5", scales(T((1, 8, 64)), (1, 1, 64), T((1, 8), "float16")),
     scales(T((1, 8, 64)), (1, 1, 64), T((1, 8)))),
    ("layout-differs", "desktop", "1.5", total(layout="height_packed"), total()),
    ("layout-not-width-packed", "desktop", "1.5", turned("height_packed"), turned("width_packed")),
    ("layout-not-width-packed", "desktop", "1.5", cat("float32", "height_packed"),
     cat("float32")),
    ("layout-not-width-packed", "desktop", "1.5", clamped("channels_packed"),
     clamped("width_packed")),
    ("storage-mixed", "desktop", "1.5", reading(T((8,), storage="buffer")),
     reading(T((8,), storage="buffer", constant=True))),
    ("layout-not-width-packed", "desktop", "1.5", float_linear("height_packed"),
     float_linear("width_packed")),
    ("quantized-linear-k4", "desktop", "1.4", linear(6), linear(12)),
    ("quantized-linear-k4", "desktop", "1.5", linear(12, dynamic=True), linear(12)),
    ("quantized-linear-k4", "desktop", "1.3", linear(12), linear(16)),
    ("quantized-linear-k4", "desktop", "1.3", linear(12), linear(12, filled=16)),
    ("quantized-linear-k4", "desktop", "1.5", linear(6, filled=8), linear(12, filled=16)),
    ("quantized-linear-k4", "desktop", "1.5", linear(12, dynamic=True),
     linear(12, dynamic=True, filled=16)),
    ("rms-norm-layout", "desktop", "1.3", norm(layout="channels_packed"), norm()),
    ("rms-norm-layout", "desktop", "1.5", norm(layout="height_packed"),
     norm(layout="height_packed", storage="buffer")),
    ("embedding-q4-layout", "desktop", "1.3", int4_embedding(layout="height_packed"),
     int4_embedding()),
    ("embedding-channels-packed", "desktop", "1.0", embedding("width_packed"),
     embedding("channels_packed")),
    ("rotary-hf-tables", "desktop", "1.3", rotary(4), rotary(8)),
    ("rotary-hf-tables", "desktop", "1.5", rotary(8, width=16), rotary(16)),
    ("sdpa-shapes", "desktop", "1.0", attention(shape=(2, 8, 2, 8)), attention()),
    ("sdpa-shapes", "desktop", "1.5", attention(shape=(1, 8, 2, 16)), attention("custom_sdpa")),
    ("sdpa-shapes", "desktop", "1.5", attention(layout="height_packed"), attention()),
    ("sdpa-options", "desktop", "1.0", attention(scale=("double", 0.5)), attention()),
    ("sdpa-options", "desktop", "1.3", attention(is_causal=("bool", False)), attention()),
    ("sdpa-options", "desktop", "1.4", attention(dropout_p=("double", 0.1)),
     attention(dropout_p=NULL)),
    ("sdpa-options", "desktop", "1.5", attention("custom_sdpa", attn_mask=T((8, 32))),
     attention("custom_sdpa")),
    ("sdpa-attention-weights", "llvmpipe", "1.5", long_attention(2052), long_attention(2048)),
    ("sdpa-attention-weights", "llvmpipe", "1.1", long_attention(2052),
     long_attention(2052, "texture3d")),
    ("choose-qparams-path", "desktop", "1.1", scales(ROWS, (1, 1, 32)), scales(ROWS, (1, 1, 64))),
    ("choose-qparams-path", "desktop", "1.5", scales(T((2, 8, 64)), (1, 1, 64)),
     scales(ROWS, (1, 1, 64))),
    ("choose-qparams-path", "desktop", "1.5", scales(T((1, 8, 62), storage="buffer"), (1, 1, 62)),
     scales(T((1, 8, 62)), (1, 1, 62))),
    ("dq8ca-scales-texture", "desktop", "1.5",
     scales(ROWS, (1, 1, 64), T((1, 8), "int8", storage="buffer")),
     scales(ROWS, (1, 1, 64), T((1, 8), "int8", layout="height_packed"))),
    ("dq8ca-scales-texture", "desktop", "1.5", told(all_in_buffers), told(lambda plan: None)),
    ("select-as-symint-dtype", "desktop", "1.1", position("float32"), position("int32")),
    ("select-as-symint-dtype", "desktop", "1.5", position("int32", given=False), position("int32")),
    ("index-select-layout", "desktop", "1.5", select("width_packed"), select("channels_packed")),
    ("index-select-layout", "desktop", "1.5", select("channels_packed", constant=True),
     select("channels_packed")),
    ("index-select-layout", "desktop", "1.0", select("channels_packed", "width_packed"),
     select("channels_packed")),
    ("missing-shader", "desktop", "1.5", cat("int8"), cat("int32")),
    ("missing-shader", "desktop", "1.5", cat("int64"), cat("float16")),
    ("missing-shader", "desktop", "1.5", handed_over("int64", "int64"),
     handed_over("int8", "int8")),
    ("missing-shader", "desktop", "1.2", mean(4, "texture2d"), mean(4, "buffer")),
    ("missing-shader", "desktop", "1.0", mean(4, "buffer"), mean(4)),
    ("missing-shader", "desktop", "1.5", packed("int8"), packed("float16")),
    ("missing-shader", "desktop", "1.5", packed("bool"), packed("float16")),
    ("missing-shader", "desktop", "1.5", handed_over("float32", "int32"),
     handed_over("float16", "float32")),
    ("missing-shader", "desktop", "1.5", handed_over("int32", "int64"),
     handed_over("int32", "int32")),
    ("missing-shader", "desktop", "1.5", handed_over("float32", "float16"),
     handed_over("bool", "uint8")),
    ("qcs4w-missing-shader", "desktop", "1.5", qcs4w, sigmoid()),
    ("gelu-approximate", "desktop", "1.5", gelu("none"), gelu("tanh")),
    ("reduce-barrier", "mali-g76", "1.4", mean(6), mean(8)),
    ("reduce-barrier", "mali-g76", "1.5", mean(1), mean(1, "buffer")),
    ("powervr-c-series", "powervr-cxtp", "1.5", sigmoid(), on_the_cpu),
    ("mali-q4-tile-8da4w", "mali-g76", "1.5", linear(32, dynamic=True), linear(32)),
    ("mali-prefill-behind-cpu", "mali-g76", "1.5", linear(32), sigmoid()),
    ("adreno-decode-behind-cpu", "adreno-8xx", "1.5", linear(32), sigmoid()),
]  # fmt: skip
