"""Programs that meet a defect of a driver or of how a runtime loads them, a number too large, or a
limit of a GPU, each beside one that does not."""

from pathlib import Path

import numpy as np
from tests.support.defects.edited_methods import (
    Edit,
    before,
    beyond_its_memory,
    called_by_no_name,
    called_twice,
    edited_method,
    given_as,
    in_memory_0,
    memory_without_use,
    of_another_backend,
    one_value_missing,
    one_value_more,
    only_tokens_given_back,
    position_of_nothing,
    result,
    stored_as,
    tokens_given_back,
    tokens_of_one_length,
    tokens_with,
    under_names,
    without_instructions,
)
from tests.support.defects.one_operator import FALSE, NULL, Make, T, call, number
from tests.support.paths import CONFORMANCE
from tests.support.programs import GraphMaker, artifact

from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget


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


def mask(value: float) -> Make:
    x, constant = T((4,), "float16"), T((4,), "float16", constant=True, fill=value)
    return call("aten.add.Tensor", x, constant, number(1), x)


def linear(name: str, dtype: str, weight_dtype: str) -> Make:
    x, weight = T((1, 8), dtype), T((8, 8), weight_dtype, constant=True)
    return call(name, x, weight, T((8,), constant=True) if "int8" in name else NULL, x)


def huge(elements: int, storage: str) -> Make:
    x = T((1, elements), storage=storage)
    return call("aten.sigmoid.default", x, x)


def constant_of(kind: str) -> Make:
    """A program that reads a constant of 256 MiB by one operator."""
    rows, width = 2**14, 2**12
    weight, index = T((rows, width), constant=True), T((1,), "int32")
    if "embedding" in kind:
        return call(kind, weight, index, NULL, FALSE, FALSE, T((1, width)))
    return call(kind, T((1, width)), weight, NULL, T((1, rows)))


# defect, the GPU and runtime to ask about, a program that has it, one that does not
DRIVER_CASES: list[tuple[str, str, str | None, Make, Make]] = [
    ("dq8ca-zp-binding-float", "mali-g715", "1.3", dynamic_zero_points("float32"),
     peer("peer-8da4w-fp32")),
    ("dq8ca-zp-binding-int8", "mali-g715", "1.3", peer("peer-8da4w-fp16-emb4"),
     peer("peer-8da4w-fp32")),
    ("shared-constant-uaf", "desktop", "1.2", prepacks(2), prepacks(1)),
    ("rms-norm-fp16-overflow", "adreno-8xx", "1.2", norm("float16"), norm("float32")),
    ("fp16-constant-overflow", "mali-g715", "1.5", mask(-np.inf), mask(-6e4)),
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
    ("delegate-call", "desktop", "1.5", edited(beyond_its_memory), edited(result(1, 96))),
    ("delegate-call", "desktop", "1.5", edited(result(1, 48)), edited(tokens_of_one_length)),
    ("delegate-call", "desktop", "1.5", edited(result(96)), edited(tokens_given_back)),
    ("delegate-call", "desktop", "1.5", edited(given_as(15)), edited(given_as(5))),
    ("delegate-call", "desktop", "1.5", constant_given, prepacks(1)),
    ("delegate-call", "desktop", "1.5", edited(memory_without_use), edited(result(1, 96))),
    *(("delegate-call", "desktop", "1.5", edited(wrong), edited(result(1, 96))) for wrong in (
        called_by_no_name, without_instructions, before("FreeCall", value_index=0),
        before("JumpFalseCall", cond_value_index=0, destination_instruction=2),
    )),
    ("delegate-call", "desktop", "1.5", edited(position_of_nothing), edited(tokens_with(layout=1))),
    ("delegate-call", "desktop", "1.5", edited(one_value_missing), edited(only_tokens_given_back)),
    ("delegate-call", "desktop", "1.5", edited(in_memory_0), edited(tokens_with(sizes=[1, 32]))),
    ("delegate-call", "desktop", "1.5", edited(stored_as(b"\x09\0\0\0")),
     edited(stored_as(bytes(4)))),
    *(("delegate-call", "desktop", "1.5", edited(tokens_with(**{name: wrong})),
       edited(tokens_with(**{name: right})))
      for name, wrong, right in (
          ("dim_order", [0], [1, 0]), ("dim_order", [0, 2], [0, 1]), ("storage_offset", 4, 0),
          ("shape_dynamism", 3, 1), ("data_buffer_idx", 5, 0), ("sizes", [1, -64], [1, 64]),
          ("sizes", [1, 1 << 20], [1, 32]),
      )),
]  # fmt: skip
