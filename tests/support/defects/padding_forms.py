"""Products in textures, of what has infinite or unwritten memory behind its last column, beside
ones of what has not. Each was run on ExecuTorch's runtime, in memory filled with NaN."""

from collections.abc import Callable
from pathlib import Path

from tests.support.defects.one_operator import FALSE, Make, T, ints, number
from tests.support.programs import GraphMaker

from quatrain.program import SymInt, ValueList

Step = Callable[[GraphMaker, int], int]


def step(name: str, out: tuple[int, ...], *args: T | tuple, storage: str = "texture3d") -> Step:
    """The operator `name` of what came before and of `args`, with a result of `out`."""

    def add(maker: GraphMaker, before: int) -> int:
        more = [arg.add_to(maker) if isinstance(arg, T) else maker.plain(*arg) for arg in args]
        made = T(out, storage=storage).add_to(maker)
        maker.call(f"aten.{name}", before, *more, made)
        return made

    return add


def joined(dim: int, *out: int) -> Step:
    """What came before, twice."""

    def add(maker: GraphMaker, before: int) -> int:
        made = T(out).add_to(maker)
        twice = maker.add(ValueList((before, before)))
        maker.call("aten.cat.default", twice, maker.plain("int", dim), made)
        return made

    return add


def second(*first: int) -> Step:
    """A product of a matrix by what came before."""

    def add(maker: GraphMaker, before: int) -> int:
        x = T(first).add_to(maker)
        made = T((*first[:-1], maker.graph.tensor(before).shape[-1])).add_to(maker)
        maker.call("aten.bmm.default", x, before, made)
        return made

    return add


def steps(x: tuple[int, ...], *all_steps: Step, any_length: int | None = None) -> Make:
    """A program of an input and these steps after each other. `any_length`: the dimension of the
    input that changes with the call."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        value = T(x, storage="texture3d").add_to(maker)
        maker.graph.inputs.append(value)
        if any_length is not None:
            size = maker.add(SymInt(x[any_length]))
            maker.call("sym_size.int", value, maker.plain("int", any_length), size)
        for each in all_steps:
            value = each(maker, value)
        return maker.save(folder / "steps.pte", [value])

    return make


def product(terms: int, storage: str = "texture3d") -> Step:
    def add(maker: GraphMaker, before: int) -> int:
        batches, rows, _ = maker.graph.tensor(before).shape
        by = T((batches, terms, 8), storage=storage)
        return step("bmm.default", (batches, rows, 8), by, storage=storage)(maker, before)

    return add


def unary(name: str, terms: int = 6, storage: str = "texture3d") -> Step:
    return step(name, (2, 5, terms), storage=storage)


def transposed(*out: int) -> Step:
    return step("permute_copy.default", out, ints(0, 2, 1))


X, LOG, RSQRT, BMM = (2, 5, 6), unary("log10.default"), unary("rsqrt.default"), product(6)
LINEAR = step("linear.default", (2, 5, 4), T((4, 6), constant=True), ("null",))
ONE_MORE = step("add.Tensor", X, T((1,), constant=True, fill=1), number(1))
BY_ONE, BY_MANY = step("mul.Tensor", X, T((2, 5, 1))), step("mul.Tensor", X, T(X))
AFTER = {
    "mul": BY_MANY,
    "div": step("div.Tensor", X, T(X)),
    "sigmoid": unary("sigmoid.default"),
    "view": step("view_copy.default", X, ints(*X)),
}
ROWS, TURNED = (2, 16, 5), (2, 5, 16)
BY_ROWS = steps(ROWS, transposed(*TURNED), product(16), any_length=1)
SWAPPED = step("permute_copy.default", (16, 2, 6), ints(1, 0, 2))
FIRST_16 = (number(1), number(0), number(16), number(1))
FILLED = joined(1, 2, 32, 5), step("slice_copy.Tensor", ROWS, *FIRST_16)
SOFTMAX = step("_softmax.default", TURNED, number(-1), FALSE)
PADDING_FORMS: list[tuple[Make, Make]] = [
    (steps(X, LOG, BMM), steps((2, 5, 8), unary("log10.default", 8), product(8))),
    (steps(X, LOG, BMM), steps(X, unary("log10.default", 6, "buffer"), product(6, "buffer"))),
    (steps(X, RSQRT, LINEAR), steps(X, ONE_MORE, RSQRT, LINEAR)),
    (steps(X, LOG, AFTER["mul"], BMM), steps(X, LOG, AFTER["div"], BMM)),
    (steps(X, LOG, AFTER["mul"], BMM), steps(X, LOG, AFTER["sigmoid"], BMM)),
    (steps(X, LOG, BMM), steps(X, LOG, AFTER["view"], BMM)),
    (steps(X, LOG, second(2, 6, 5), product(6)), steps(X, LOG, second(2, 6, 5))),
    (steps((2, 5, 3), joined(2, *X), BMM), steps((2, 5, 4), joined(2, 2, 5, 8), product(8))),
    (steps((2, 5, 3), joined(2, *X), BMM), steps((2, 3, 6), joined(1, 2, 6, 6), BMM)),
    (steps(X, RSQRT, BY_ONE, BMM), steps((2, 5, 1), unary("rsqrt.default", 1), BY_MANY, BMM)),
    (steps((2, 5, 1), unary("rsqrt.default", 1), BY_MANY, LOG, BMM), steps(X, ONE_MORE, LOG, BMM)),
    (BY_ROWS, steps(ROWS, transposed(*TURNED), product(16))),
    (BY_ROWS, steps(ROWS, transposed(*TURNED), product(16), any_length=0)),
    (BY_ROWS, steps(ROWS, transposed(*TURNED), SOFTMAX, product(16), any_length=1)),
    (BY_ROWS, steps((2, 16, 6), SWAPPED, BMM, any_length=1)),
    (BY_ROWS, steps(ROWS, *FILLED, transposed(*TURNED), product(16), any_length=1)),
]  # fmt: skip
PADDING_CASES: list[tuple[str, str, str | None, Make, Make]] = [
    ("product-padding", "desktop", "1.5", has, lacks) for has, lacks in PADDING_FORMS
]
HOW_SURE_OF_PADDING: list[tuple[str, str, str | None, Make, str]] = [
    ("product-padding", "desktop", "1.5", steps(X, LOG, BMM), "conditional"),
    ("product-padding", "desktop", "1.5", BY_ROWS, "possible"),
]
