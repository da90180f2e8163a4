"""Programs that meet a defect of a driver or of how a runtime loads them, a number too large, or a
limit of a GPU, each beside one that does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.support.edited_methods import (
    Edit,
    called_twice,
    edited_method,
    of_another_backend,
    one_value_more,
    result,
    tokens_given_back,
    tokens_of_one_length,
    under_names,
)
from tests.support.paths import CONFORMANCE
from tests.support.programs import GraphMaker, artifact

from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget

Make = Callable[[Path], Path]


def peer(name: str) -> Make:
    return lambda folder: artifact(name)


def edited(edit: Edit) -> Make:
    return edited_method(CONFORMANCE / "llama_w.pte", edit)


def methods(*names: str) -> Make:
    return under_names(CONFORMANCE / "llama_w.pte", *names)


def dynamic_zero_points(dtype: str) -> Make:
    def make(folder: Path) -> Path:
        program = open_program(artifact("peer-8da4w-fp32"))
        retarget(program, "8da4w", zero_point_dtype=dtype)
        write_program(program, folder / f"{dtype}.pte")
        return folder / f"{dtype}.pte"

    return make


def rows(count: int) -> Make:
    """A dynamic int4 linear of 64 inputs that may see `count` rows."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input("float32", 1, count, 64)
        weights = maker.constant(np.zeros((8, 32), dtype=np.uint8))
        scales = maker.constant(np.ones((2, 8), dtype=np.float32))
        out = maker.tensor("float32", 1, count, 8)
        group, null = maker.plain("int", 32), maker.plain("null")
        maker.call("et_vk.linear_q4gsw.default", x, weights, scales, group, null, out)
        path = maker.save(folder / "rows.pte", [out])
        program = open_program(path)
        retarget(program, "8da4w")
        write_program(program, path)
        return path

    return make


def prepacks(times: int) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        constant = maker.constant(np.ones(4, dtype=np.float32))
        outs = [maker.tensor("float32", 4) for _ in range(times)]
        for out in outs:
            maker.call("et_vk.prepack.default", constant, out)
        return maker.save(folder / "prepacks.pte", outs)

    return make


def constant_given(folder: Path) -> Path:
    maker = GraphMaker()
    return maker.save(folder / "given.pte", [maker.constant(np.ones(4, dtype=np.float32))])


def norm(dtype: str) -> Make:
    """RMS norm in parts: mean(x * x), rsqrt."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input(dtype, 1, 8)
        square, mean, root = (maker.tensor(dtype, 1, size) for size in (8, 1, 1))
        maker.call("aten.mul.Tensor", x, x, square)
        dims, keep = maker.plain("int_list", (-1,)), maker.plain("bool", True)
        maker.call("aten.mean.dim", square, dims, keep, maker.plain("null"), mean)
        maker.call("aten.rsqrt.default", mean, root)
        return maker.save(folder / f"norm-{dtype}.pte", [root])

    return make


def mask(value: float, dtype: str = "float16") -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input("float16", 4), maker.tensor("float16", 4)
        with np.errstate(over="ignore"):
            constant = maker.constant(np.full(4, value).astype(dtype))
        maker.call("aten.add.Tensor", x, constant, maker.plain("int", 1), out)
        return maker.save(folder / "mask.pte", [out])

    return make


def linear(name: str, dtype: str, weight_dtype: str) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input(dtype, 1, 8), maker.tensor(dtype, 1, 8)
        weight = maker.constant(np.ones((8, 8)).astype(weight_dtype))
        last = maker.constant(np.ones(8, dtype=np.float32))
        maker.call(name, x, weight, last if "int8" in name else maker.plain("null"), out)
        return maker.save(folder / "linear.pte", [out])

    return make


def huge(elements: int, storage: str) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input("float32", 1)
        out = maker.tensor("float32", 1, elements, storage=storage)
        maker.call("aten.sigmoid.default", x, out)
        return maker.save(folder / "huge.pte", [out])

    return make


def constant_of(kind: str) -> Make:
    """A program that reads a constant of 256 MiB by one operator."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input("int32", 1), maker.tensor("float32", 1, 64)
        weight = maker.constant(np.zeros((2**14, 2**12), dtype=np.float32))
        null, false = maker.plain("null"), maker.plain("bool", False)
        rest = {"aten.embedding.default": (null, false, false), "aten.linear.default": (null,)}
        first = (weight, x) if "embedding" in kind else (x, weight)
        maker.call(kind, *first, *rest[kind], out)
        return maker.save(folder / "constant.pte", [out])

    return make


# defect, the GPU and runtime to ask about, a program that has it, one that does not
DRIVER_CASES: list[tuple[str, str, str | None, Make, Make]] = [
    ("dq8ca-zp-binding-float", "mali-g715", "1.3", dynamic_zero_points("float32"),
     peer("peer-8da4w-fp32")),
    ("dq8ca-zp-binding-int8", "mali-g715", "1.3", peer("peer-8da4w-fp16-emb4"),
     peer("peer-8da4w-fp32")),
    ("dq8ca-m-gt-k", "adreno-7xx", "1.4", rows(65), rows(64)),
    ("shared-constant-uaf", "desktop", "1.2", prepacks(2), prepacks(1)),
    ("rms-norm-fp16-overflow", "adreno-8xx", "1.2", norm("float16"), norm("float32")),
    ("fp16-constant-overflow", "mali-g715", "1.5", mask(-1e5), mask(-6e4)),
    ("no-16bit-storage", "no-16bit", "1.2", linear("aten.linear.default", "float16", "float16"),
     linear("aten.linear.default", "float32", "float32")),
    ("adreno740-block-index", "adreno-740", "1.2", prepacks(1), peer("peer-xnnpack-8da4w")),
    ("qcs8w-missing-shader", "adreno-8xx", "1.5",
     linear("aten._weight_int8pack_mm.default", "float16", "int8"),
     linear("aten.linear.default", "float32", "float32")),
    ("buffer-limit", "llvmpipe", "1.5", huge(2**26, "buffer"), huge(2**25, "buffer")),
    ("partial-delegation", "llvmpipe", "1.5", edited(called_twice), methods("prefill", "decode")),
    ("caches-per-method", "llvmpipe", "1.5", methods("prefill", "decode"), edited(called_twice)),
    ("delegate-call", "desktop", "1.5", edited(one_value_more), edited(called_twice)),
    ("delegate-call", "desktop", "1.5", edited(of_another_backend), edited(result(1, 96))),
    ("delegate-call", "desktop", "1.5", edited(result(1, 48)), edited(tokens_of_one_length)),
    ("delegate-call", "desktop", "1.5", edited(result(96)), edited(tokens_given_back)),
    ("delegate-call", "desktop", "1.5", constant_given, prepacks(1)),
]  # fmt: skip
