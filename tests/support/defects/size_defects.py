"""Programs that get sizes of results or dimensions wrong on a phone, beside ones that do not."""

from pathlib import Path

import numpy as np
from tests.support.defects.one_operator import FALSE, NULL, Make, T, call, ints, number
from tests.support.programs import GraphMaker

from quatrain.program import SymInt, ValueList


def split(any_length: bool = True) -> Make:
    """Two parts of [1, 8, 12], of 4 and 8 channels, put together the other way round."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input("float32", 1, 8, 12)
        last = maker.plain("int", -1)
        if any_length:
            maker.call("sym_size.int", x, maker.plain("int", 1), maker.add(SymInt(8)))
        parts = tuple(maker.tensor("float32", 1, 8, channels) for channels in (4, 8))
        sizes, both = maker.add_shape(4, 8), maker.add(ValueList(parts))
        maker.call("aten.split_with_sizes_copy.default", x, sizes, last, both)
        out = maker.tensor("float32", 1, 8, 12)
        maker.call("aten.cat.default", maker.add(ValueList(parts[::-1])), last, out)
        return maker.save(folder / "split.pte", [out])

    return make


def viewed_split(length: int | None) -> Make:
    """A part of [1, 8, 12] seen as [1, length, 2, 2]; None: as long as the call."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, one = maker.input("float32", 1, 8, 12), maker.plain("int", 1)
        tokens = maker.add(SymInt(8))
        maker.call("sym_size.int", x, one, tokens)
        parts = [maker.tensor("float32", 1, 8, channels) for channels in (4, 8)]
        both, sizes = maker.add(ValueList(tuple(parts))), maker.add_shape(4, 8)
        last, two = maker.plain("int", -1), maker.plain("int", 2)
        maker.call("aten.split_with_sizes_copy.default", x, sizes, last, both)
        seen = tokens if length is None else maker.plain("int", length)
        shape = maker.add(ValueList((one, seen, two, two)))
        out = maker.tensor("float32", 1, 8, 2, 2)
        maker.call("aten.view_copy.default", parts[0], shape, out)
        return maker.save(folder / "viewed_split.pte", [out])

    return make


def squeeze(dim: int, storage: str = "texture3d", fixed: bool = False) -> Make:
    """[1, 1, 8, 4] without a dimension; `fixed`: of one that no call makes shorter."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        if fixed:
            maker.input("float32", 1, 16)
        x = maker.tensor("float32", 1, 1, 8, 4, storage=storage)
        maker.graph.inputs.append(x)
        measured, at, size = (maker.graph.inputs[0], 1, 16) if fixed else (x, 2, 8)
        maker.call("sym_size.int", measured, maker.plain("int", at), maker.add(SymInt(size)))
        out = maker.tensor("float32", 1, 8, 4, storage=storage)
        maker.call("aten.squeeze_copy.dims", x, maker.add_shape(dim), out)
        return maker.save(folder / "squeeze.pte", [out])

    return make


def squeeze_of_given_length(folder: Path) -> Path:
    """[1, 8, 4] without its first dimension, in a delegate that is given the call's length, as
    exporters give one what another one measured."""
    maker = GraphMaker()
    maker.graph.inputs.append(maker.add(SymInt(8)))
    x, out = maker.input("float32", 1, 8, 4), maker.tensor("float32", 8, 4)
    maker.call("sym_size.int", x, maker.plain("int", 1), maker.add(SymInt(8)))
    maker.call("aten.squeeze_copy.dims", x, maker.add_shape(0), out)
    return maker.save(folder / "given_length.pte", [out])


def converted(dtype: str, storage: str = "texture3d", viewed: bool = False) -> Make:
    """[1, 8, 12] in float16 as `dtype`, and its sigmoid; `viewed`: as long as the call."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.tensor("float16", 1, 8, 12, storage=storage)
        maker.graph.inputs.append(x)
        one, null, tokens = maker.plain("int", 1), maker.plain("null"), maker.add(SymInt(8))
        maker.call("sym_size.int", x, one, tokens)
        out, after, seen = (maker.tensor(dtype, 1, 8, 12, storage=storage) for _ in range(3))
        maker.call("aten._to_copy.default", x, *[null] * 6, out)
        maker.call("aten.sigmoid.default", out, after)
        if viewed:
            shape = maker.add(ValueList((one, tokens, maker.plain("int", 12))))
            maker.call("aten.view_copy.default", after, shape, seen)
        return maker.save(folder / "converted.pte", [seen if viewed else after])

    return make


def embedded(layout: str) -> Make:
    """The rows of a table [16, 12] for [1, 8] tokens, all channels-packed or so."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        tokens = maker.tensor("int32", 1, 8, layout=layout)
        maker.graph.inputs.append(tokens)
        maker.call("sym_size.int", tokens, maker.plain("int", 1), maker.add(SymInt(8)))
        table = maker.constant(np.arange(192, dtype=np.float32).reshape(16, 12))
        no, out = maker.plain("bool", False), maker.tensor("float32", 1, 8, 12, layout=layout)
        padding = maker.plain("int", -1)
        maker.call("aten.embedding.default", table, tokens, padding, no, no, out)
        return maker.save(folder / "embedded.pte", [out])

    return make


def convolved(padding: int, dilation: int = 1, cut: bool = True) -> Make:
    """Embeddings [1, 8, 12], along the tokens of which a kernel of 3 goes; `cut`: to the call."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        packed = {"layout": "channels_packed"}
        tokens = maker.tensor("int32", 1, 8, **packed)
        maker.graph.inputs.append(tokens)
        one, length = maker.plain("int", 1), maker.add(SymInt(8))
        maker.call("sym_size.int", tokens, one, length)
        table = maker.constant(np.arange(192, dtype=np.float32).reshape(16, 12))
        no, rows = maker.plain("bool", False), maker.tensor("float32", 1, 8, 12, **packed)
        maker.call("aten.embedding.default", table, tokens, maker.plain("int", -1), no, no, rows)
        turned = maker.tensor("float32", 1, 12, 8, **packed)
        maker.call("aten.permute_copy.default", rows, maker.add_shape(0, 2, 1), turned)
        kernel = maker.constant(np.ones((4, 12, 3), dtype=np.float32))
        reached = 8 + 2 * padding - 2 * dilation
        mixed, out = (maker.tensor("float32", 1, 4, n, **packed) for n in (reached, 8))
        numbers = [maker.add_shape(each) for each in (1, padding, dilation)]
        maker.call("aten.convolution.default", turned, kernel, maker.plain("null"), *numbers, no,
                   maker.add_shape(0), one, mixed)  # fmt: skip
        if cut:
            two, zero = maker.plain("int", 2), maker.plain("int", 0)
            maker.call("aten.slice_copy.Tensor", mixed, two, zero, length, one, out)
        return maker.save(folder / "convolved.pte", [out if cut else mixed])

    return make


def converted_last(folder: Path) -> Path:
    """The last token of [1, 8, 8], from float16 to float32."""
    maker = GraphMaker()
    x, one, null = maker.input("float16", 1, 8, 8), maker.plain("int", 1), maker.plain("null")
    maker.call("sym_size.int", x, one, maker.add(SymInt(8)))
    last, out = (maker.tensor(dtype, 1, 8) for dtype in ("float16", "float32"))
    maker.call("aten.select_copy.int", x, one, maker.plain("int", -1), last)
    maker.call("aten._to_copy.default", last, *[null] * 6, out)
    return maker.save(folder / "converted_last.pte", [out])


def memory(*of: int) -> Make:
    """x, its sigmoid, the sigmoid of that and the sum of the last two, each in such memory."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, first, second, out = (maker.tensor("float32", 1, 8, 4, mem_obj_id=i) for i in of)
        maker.graph.inputs.append(x)
        maker.call("aten.sigmoid.default", x, first)
        maker.call("aten.sigmoid.default", first, second)
        maker.call("aten.add.Tensor", first, second, maker.plain("int", 1), out)
        return maker.save(folder / "memory.pte", [out])

    return make


def in_place(name: str, *args: tuple, dtype: str = "float32") -> Make:
    """An operator of x [1, 4, 4] and `args`, whose result, of `dtype`, is in the memory of x."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = (maker.tensor(each, 1, 4, 4, mem_obj_id=0) for each in ("float32", dtype))
        maker.graph.inputs.append(x)
        maker.call(name, x, *(maker.plain(*arg) for arg in args), out)
        return maker.save(folder / "in_place.pte", [out])

    return make


def prepacked(*of: int) -> Make:
    """x, its sigmoid, a constant and the sum of the last two, each but the constant's first form in
    such memory."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, first, laid_out, out = (maker.tensor("float32", 1, 4, 4, mem_obj_id=i) for i in of)
        maker.graph.inputs.append(x)
        stored = maker.constant(np.ones((1, 4, 4), np.float32))
        maker.call("aten.sigmoid.default", x, first)
        maker.call("et_vk.prepack.default", stored, laid_out)
        maker.call("aten.add.Tensor", first, laid_out, maker.plain("int", 1), out)
        return maker.save(folder / "prepacked.pte", [out])

    return make


def halves(*of: int) -> Make:
    """The halves of x [1, 4, 8], each in such memory, of which the second alone is used."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input("float32", 1, 4, 8)
        parts = tuple(maker.tensor("float32", 1, 4, 4, mem_obj_id=i) for i in of)
        sizes, last = maker.add_shape(4, 4), maker.plain("int", -1)
        both = maker.add(ValueList(parts))
        maker.call("aten.split_with_sizes_copy.default", x, sizes, last, both)
        return maker.save(folder / "halves.pte", [parts[1]])

    return make


def norm(*shape: int, **more: str) -> Make:
    x, each = T(shape, **more), T(shape[-1:], constant=True)  # type: ignore
    means = [T((*shape[:-1], 1))] * 2
    over, epsilon = ints(shape[-1]), ("double", 1e-5)
    return call("aten.native_layer_norm.default", x, over, each, each, epsilon, [x, *means])


def summed(first: T, second: T, out: T) -> Make:
    return call("aten.add.Tensor", first, second, number(1), out)


def softmax(x: T) -> Make:
    return call("aten._softmax.default", x, number(-1), FALSE, x)


def of_one(name: str, *shape: int, storage: str = "texture3d") -> Make:
    x = T(shape, storage=storage)
    return call(name, x, *((NULL,) if name == "aten.clone.default" else ()), x)


NUMBER, ONE = T(()), T((1,))
CLONE, SINE = "aten.clone.default", "aten.sin.default"
TURNED = in_place("aten.permute_copy.default", ints(0, 2, 1))
SOFTMAX = in_place("aten._softmax.default", number(-1), FALSE)
CONVERTED = in_place("aten._to_copy.default", *[NULL] * 6, dtype="float16")
SIGMOID = in_place("aten.sigmoid.default")

# defect, the GPU and runtime to ask about, a program that has it, one that does not
SIZE_CASES: list[tuple[str, str, str, Make, Make]] = [
    ("memory-still-read", "desktop", "1.5", memory(0, 1, 1, 2), memory(0, 1, 0, 2)),
    ("memory-still-read", "desktop", "1.5", memory(0, 1, 1, 2), memory(0, 1, 2, 2)),
    ("memory-still-read", "desktop", "1.5", TURNED, SIGMOID),
    ("memory-still-read", "desktop", "1.5", SOFTMAX, SIGMOID),
    ("memory-still-read", "desktop", "1.5", CONVERTED, SIGMOID),
    ("memory-still-read", "desktop", "1.5", prepacked(0, 1, 2, 2), prepacked(0, 1, 2, 0)),
    ("memory-still-read", "desktop", "1.5", prepacked(0, 1, 0, 2), prepacked(0, 1, 2, 1)),
    ("memory-still-read", "desktop", "1.5", halves(0, 0), halves(0, 1)),
    ("results-not-resized", "mali-g715", "1.4", split(), split(any_length=False)),
    ("results-not-resized", "desktop", "1.5", viewed_split(-1), viewed_split(None)),
    ("results-not-resized", "desktop", "1.5", squeeze(0), squeeze(1)),
    ("results-not-resized", "desktop", "1.5", squeeze(0), squeeze(0, "buffer")),
    ("results-not-resized", "desktop", "1.5", squeeze(0), squeeze(0, fixed=True)),
    ("results-not-resized", "desktop", "1.5", squeeze_of_given_length, squeeze(1)),
    ("results-not-resized", "desktop", "1.5", converted("float32"), converted("int32")),
    (
        "results-not-resized",
        "desktop",
        "1.5",
        embedded("channels_packed"),
        embedded("width_packed"),
    ),
    ("results-not-resized", "desktop", "1.5", converted("float16"), converted_last),
    ("results-not-resized", "desktop", "1.5", convolved(1), convolved(2)),
    ("results-not-resized", "desktop", "1.5", convolved(2, cut=False), convolved(4, dilation=2)),
    ("results-not-resized", "desktop", "1.5", convolved(3, dilation=2), convolved(2)),
    (
        "results-not-resized",
        "desktop",
        "1.5",
        converted("float32"),
        converted("float32", viewed=True),
    ),
    ("layer-norm-three-workers", "desktop", "1.5", norm(2, 4, 9), norm(2, 3, 9)),
    ("layer-norm-three-workers", "desktop", "1.5", norm(2, 4, 9), norm(2, 4, 8)),
    ("layer-norm-three-workers", "desktop", "1.5", norm(3, 5, 8), norm(1, 4, 9)),
    ("layer-norm-three-workers", "mali-g715", "1.5", norm(2, 4, 9), norm(4, 2, 9)),
    ("layer-norm-three-workers", "desktop", "1.5", norm(3, 3, 8), norm(2, 4, 9, storage="buffer")),
    (
        "number-arithmetic",
        "desktop",
        "1.5",
        summed(NUMBER, NUMBER, NUMBER),
        summed(NUMBER, ONE, ONE),
    ),
    ("number-arithmetic", "desktop", "1.5", softmax(NUMBER), softmax(ONE)),
    (
        "sizes-differ",
        "desktop",
        "1.5",
        summed(T((4, 8)), T((8,)), T((5, 8))),
        summed(T((4, 1)), T((8,)), T((4, 8))),
    ),
    (
        "more-than-four-dims",
        "desktop",
        "1.5",
        of_one(CLONE, 1, 1, 2, 3, 4),
        of_one(CLONE, 1, 1, 2, 3, 4, storage="buffer"),
    ),
    (
        "more-than-four-dims",
        "desktop",
        "1.5",
        of_one(SINE, 1, 1, 2, 3, 4, storage="buffer"),
        of_one(SINE, 1, 2, 3, 4),
    ),
]
