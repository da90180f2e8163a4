"""What older releases alone compute wrongly or refuse. 1.1 to 1.4 were built and run."""

from pathlib import Path

from tests.support.defects.form_defects import chosen
from tests.support.defects.kernel_defects import attention, embedding, on_the_cpu, sigmoid
from tests.support.defects.length_forms import of_any_length
from tests.support.defects.one_operator import Make, T, call
from tests.support.defects.size_defects import converted, memory
from tests.support.programs import GraphMaker

from quatrain.program import Plain, SymInt


def compared(storage: str) -> Make:
    x, out = T((2, 6), storage=storage), T((2, 6), "bool", storage)
    return call("aten.lt.Tensor", x, x, out)


def given_back(value: SymInt | None) -> Make:
    """A delegate that gives an integer, or a tensor."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        out = maker.tensor("float32", 1, 4) if value is None else maker.add(value)
        return maker.save(folder / "given_back.pte", [out])

    return make


def added(to: Plain | SymInt) -> Make:
    """A number that changes, and another one that is added to it."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        changing, out = maker.add(SymInt(1)), maker.add(SymInt(3))
        maker.call("add", changing, maker.add(to), out)
        return maker.save(folder / "added.pte", [maker.tensor("float32", 1, 4)])

    return make


def at_position(position: int | SymInt, tokens: int = 4) -> Make:
    """Attention of so many tokens from a fixed position on, or from one that changes."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        q, cache = maker.tensor("float32", 1, tokens, 2, 8), maker.tensor("float32", 1, 9, 2, 8)
        place = position if isinstance(position, SymInt) else Plain("int", position)
        rest = [maker.plain("null")] * 4
        maker.call("custom_sdpa.default", q, cache, cache, maker.add(place), *rest, q)
        return maker.save(folder / "attention.pte", [q])

    return make


def ranged(end: Plain | SymInt) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        start, step, null = maker.plain("int", 0), maker.plain("int", 1), maker.plain("null")
        out = maker.tensor("int32", 8)
        maker.call("aten.arange.start_step", start, maker.add(end), step, *[null] * 4, out)
        return maker.save(folder / "ranged.pte", [out])

    return make


FIXED, CHANGING = Plain("int", 8), SymInt(8)
OLDER_CASES: list[tuple[str, str, str | None, Make, Make]] = [
    ("sdpa-softmax-overflow", "desktop", "1.2", attention(8), sigmoid()),
    ("index-of-rows", "desktop", "1.4", chosen("buffer"), chosen("texture3d")),
    ("converted-integers", "desktop", "1.1", converted("int32"), converted("float16")),
    ("comparisons-in-textures", "desktop", "1.1", compared("texture3d"), compared("buffer")),
    ("integer-arguments", "desktop", "1.4", given_back(SymInt(3)), given_back(None)),
    ("numbers-of-another-kind", "desktop", "1.2", added(FIXED), added(CHANGING)),
    ("numbers-of-another-kind", "desktop", "1.2", at_position(0), at_position(SymInt(0))),
    ("numbers-of-another-kind", "desktop", "1.2", ranged(CHANGING), ranged(FIXED)),
    ("sdpa-uneven-calls", "desktop", "1.4", at_position(0, 5), at_position(0, 4)),
    ("sdpa-uneven-calls", "desktop", "1.1", of_any_length(at_position(0, 7)),
     of_any_length(at_position(0, 8))),
    ("reused-memory-barrier", "adreno-8xx", "1.3", memory(0, 1, 0, 2), memory(0, 1, 2, 3)),
    ("results-not-mapped", "adreno-8xx", "1.2", sigmoid(), on_the_cpu),
    ("embedding-not-resized", "desktop", "1.0", of_any_length(embedding("channels_packed")),
     embedding("channels_packed")),
]  # fmt: skip
