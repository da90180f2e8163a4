"""Programs that meet a defect of an operator's kernel, each beside one that does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.defects.driver_defects import peer
from tests.support.defects.one_operator import FALSE, NULL, Make, T, call, number
from tests.support.paths import CONFORMANCE, REAL_RUNTIME
from tests.support.programs import GraphMaker, artifact

from quatrain.multiples import up_to
from quatrain.program import ValueList, open_program, write_program
from quatrain.program.edit.retarget import retarget


def measured(name: str) -> Make:
    """A program that ExecuTorch's own runtime was measured with."""

    def make(folder: Path) -> Path:
        for path in (CONFORMANCE / f"{name}.pte", REAL_RUNTIME / f"{name}.pte"):
            if path.exists():
                return path
        pytest.skip(f"{name}.pte is not here")

    return make


def embedding(layout: str, tokens: int = 8) -> Make:
    indices, out = T((1, tokens), "int32", layout=layout), T((1, tokens, 4), layout=layout)
    table = T((16, 4), constant=True)
    return call("aten.embedding.default", table, indices, NULL, FALSE, FALSE, out)


def int4_embedding(
    width: int = 32, layout: str = "width_packed", batch: int = 1, storage: str = "texture3d"
) -> Make:
    weights, scales = T((16, width // 2), "uint8", constant=True), T((16, 1), constant=True)
    indices = T((batch, 8), "int32", storage, layout)
    out = T((batch, 8, width), storage=storage)
    name = "et_vk.embedding_q4gsw.default"
    return call(name, weights, scales, number(width), indices, FALSE, out)


def weight_only(
    rows: int = 8,
    channels: int = 64,
    dtype: str = "float32",
    bias: bool = False,
    batch: int = 1,
    storage: str = "texture3d",
    scales_in: str | None = None,
) -> Make:
    """A weight-only linear of 64 inputs."""
    x, out = (T((batch, rows, wide), dtype, storage=storage) for wide in (64, channels))
    weights = T((channels, 32), "uint8", constant=True)
    scales = T((2, up_to(channels, 4)), scales_in or dtype, constant=True, fill=1)
    last = T((channels,), dtype, constant=True) if bias else NULL
    return call("et_vk.linear_q4gsw.default", x, weights, scales, number(32), last, out)


def dynamic_rows(count: int) -> Make:
    """A dynamic int4 linear of 64 inputs that may see `count` rows."""

    def make(folder: Path) -> Path:
        path = weight_only(count)(folder)
        program = open_program(path)
        retarget(program, "8da4w")
        write_program(program, path)
        return path

    return make


def dynamic(
    rows: int = 8,
    group_size: int = 32,
    dtype: str = "float32",
    zero_points: str = "int8",
    storage: str = "texture3d",
    channels: int = 8,
    sums_apart: int = 8,
    scales_apart: int | None = None,
    inputs: int = 256,
) -> Make:
    """A dynamic int4 linear and the choice of its scales."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input(dtype, 1, rows, inputs)
        scales = maker.tensor(dtype, 1, rows)
        zeros = maker.tensor(zero_points, 1, rows)
        groups = inputs // group_size
        weights = maker.constant(np.zeros((channels, up_to(inputs, 8) // 2), dtype=np.uint8))
        sums = maker.constant(np.zeros((groups, sums_apart), dtype=np.int32))
        apart = channels if scales_apart is None else scales_apart
        weight_scales = maker.constant(np.ones((groups, apart), dtype=dtype))
        out = maker.tensor(dtype, 1, rows, channels, storage=storage)
        null, group = maker.plain("null"), maker.plain("int", group_size)
        chosen = [x, null, maker.add_shape(1, 1, inputs), *(null for _ in range(7))]
        maker.call("torchao.choose_qparams_affine.default", *chosen,
                   maker.add(ValueList((scales, zeros))))  # fmt: skip
        maker.call("et_vk.linear_dq8ca_q4gsw.default", x, scales, zeros, weights, sums,
                   weight_scales, group, null, out)  # fmt: skip
        return maker.save(folder / "dynamic.pte", [out])

    return make


def rotary(
    kind: str,
    width: int = 8,
    head: int = 16,
    keys: int = 2,
    batches: int = 1,
    storage: str = "texture3d",
) -> Make:
    q, k = (T((batches, 8, heads, head), storage=storage) for heads in (2, keys))
    table = T((8, width), storage=storage)
    more = [number(0)] if kind.endswith("hf") else []
    return call(f"{kind}.default", q, k, table, table, *more, [q, k])


def attention(head: int) -> Make:
    q = T((1, 8, 2, head), storage="buffer")
    return call("sdpa_with_kv_cache.default", q, *(NULL,) * 10, q)


def select(places: int) -> Make:
    x, index, out = T((1, 8, 4)), T((places,), "int32"), T((1, places, 4))
    return call("aten.index_select.default", x, number(1), index, out)


def linear_rows(rows: int) -> Make:
    x = T((1, rows, 8))
    return call("aten.linear.default", x, T((8, 8), constant=True), NULL, x)


def row_of_a_table(rows: int) -> Make:
    """A product with a row of so many, as the exporter stores a view of a larger tensor."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input("float32", 4), maker.tensor("float32", 4)
        row = maker.constant(np.zeros((rows, 4), np.float32))
        maker.graph.values[row] = replace(maker.graph.tensor(row), shape=(4,))
        maker.call("aten.mul.Tensor", x, row, out)
        return maker.save(folder / "row.pte", [out])

    return make


def sigmoid(storage: str = "texture3d") -> Make:
    x = T((4,), storage=storage)
    return call("aten.sigmoid.default", x, x)


def on_the_cpu(folder: Path) -> Path:
    return artifact("peer-xnnpack-8da4w")


_HF, _INTERLEAVED = "et_vk.apply_rotary_emb_hf", "et_vk.apply_rotary_emb"
_GELU = call("aten.gelu.default", T((1, 4)), ("string", "tanh"), T((1, 4)))
_CONVOLUTION = call("aten.convolution.default", T((1, 4, 4, 4)), *(NULL,) * 8, T((1, 4, 4, 4)))
SUMS_APART = dynamic(channels=12, sums_apart=16)

# defect, the GPU and runtime to ask about, a program that has it, one that does not
KERNEL_CASES: list[tuple[str, str, str, Make, Make]] = [
    ("unknown-operator", "desktop", "1.2", measured("llama_w"), weight_only()),
    ("embedding-height-packed", "desktop", "1.5", embedding("height_packed"),
     embedding("width_packed")),
    ("embedding-height-packed", "mali-g715", "1.5", measured("voc20k_w16"), measured("llama_w")),
    ("embedding-height-packed", "desktop", "1.5", embedding("height_packed"),
     embedding("height_packed", tokens=1)),
    ("dq8ca-group-sums", "adreno-8xx", "1.0", dynamic(group_size=256), dynamic(group_size=128)),
    ("dq8ca-group-sums", "xclipse", "1.5", measured("g256_d"), measured("g128_d")),
    ("dq8ca-group-sums", "xclipse", "1.5", dynamic(group_size=256), dynamic(1, group_size=256)),
    ("dq8ca-sums-apart", "mali-g715", "1.5", measured("apart_d"), measured("llama_d")),
    ("dq8ca-sums-apart", "adreno-8xx", "1.5", SUMS_APART, dynamic(channels=12, sums_apart=12)),
    ("dq8ca-sums-apart", "desktop", "1.1", SUMS_APART, dynamic(1, channels=12, sums_apart=16)),
    ("dq8ca-sums-apart", "desktop", "1.5", SUMS_APART,
     dynamic(group_size=256, channels=12, sums_apart=16)),
    ("q4gsw-scales-apart", "mali-g715", "1.5", measured("apart_w"), measured("llama_w")),
    ("q4gsw-scales-apart", "desktop", "1.1", dynamic(1, scales_apart=12), dynamic(1)),
    ("q4gsw-scales-apart", "desktop", "1.5", dynamic(scales_apart=12),
     dynamic(group_size=256, scales_apart=12)),
    ("dq8ca-m-gt-k", "adreno-7xx", "1.4", dynamic_rows(65), dynamic_rows(64)),
    ("dq8ca-zp-dtype", "desktop", "1.4", dynamic(zero_points="int32"), dynamic()),
    ("dq8ca-half-sums", "desktop", "1.5", dynamic(dtype="float16", storage="buffer", group_size=64),
     dynamic(dtype="float16", group_size=64)),
    ("dq8ca-half-sums", "desktop", "1.5", dynamic(dtype="float16", storage="buffer", group_size=64),
     dynamic(dtype="float16", storage="buffer")),
    ("dq8ca-half-sums", "desktop", "1.5",
     dynamic(dtype="float16", storage="buffer", inputs=36, group_size=36),
     dynamic(dtype="float16", storage="buffer", inputs=36, group_size=12)),
    ("dq8ca-n4", "desktop", "1.5", dynamic(channels=10, sums_apart=12, storage="buffer"),
     dynamic(channels=12, sums_apart=12, storage="buffer")),
    ("dq8ca-n4", "mali-g715", "1.3", dynamic(channels=10, sums_apart=12, storage="buffer"),
     dynamic(channels=10, sums_apart=12)),
    ("dq8ca-n4", "desktop", "1.5", dynamic(channels=10, sums_apart=12, storage="buffer"),
     dynamic(1, channels=10, sums_apart=12, storage="buffer")),
    ("q4gsw-n4-in-buffers", "desktop", "1.3", weight_only(channels=98, storage="buffer"),
     weight_only(channels=96, storage="buffer")),
    ("q4gsw-n4-in-buffers", "desktop", "1.2", weight_only(channels=98, storage="buffer"),
     weight_only(channels=98)),
    ("q4gsw-n4", "desktop", "1.4", weight_only(channels=98), weight_only(channels=96)),
    ("q4gsw-n4", "mali-g715", "1.5", measured("n98_w"), measured("llama_w")),
    ("int4-linear-batches", "desktop", "1.5", weight_only(batch=3), weight_only()),
    ("q4gsw-bias-dropped", "desktop", "1.2", weight_only(bias=True), weight_only()),
    ("q4gsw-half-accumulation", "desktop", "1.4", weight_only(dtype="float16"), weight_only()),
    ("constant-of-a-part", "desktop", "1.5", row_of_a_table(3), row_of_a_table(1)),
    ("rotary-width-8", "desktop", "1.3", rotary(_HF, 12), rotary(_HF, 8)),
    ("rotary-width-8", "mali-g715", "1.5", measured("hd12_w"), measured("llama_w")),
    ("rotary-interleaved-tail", "desktop", "1.0", rotary(_INTERLEAVED, head=12),
     rotary(_INTERLEAVED, head=16)),
    ("rotary-interleaved-tail", "desktop", "1.5", rotary(_INTERLEAVED, 5, head=10),
     rotary(_INTERLEAVED, 7, head=14)),
    ("rotary-rows-in-buffers", "desktop", "1.5", rotary(_INTERLEAVED, 7, head=14, storage="buffer"),
     rotary(_INTERLEAVED, 7, head=14)),
    ("rotary-rows-in-buffers", "desktop", "1.3", rotary(_HF, head=10, storage="buffer"),
     rotary(_HF, head=12, storage="buffer")),
    ("rotary-batches", "desktop", "1.2", rotary(_INTERLEAVED, batches=2), rotary(_INTERLEAVED)),
    ("rotary-batches", "desktop", "1.5", rotary(_HF, batches=2), rotary(_HF)),
    ("rotary-hf-kv-heads", "desktop", "1.3", rotary(_HF, keys=4), rotary(_HF, keys=2)),
    ("embedding-q4-dynamic-oob", "mali-g710", None, peer("peer-8da4w-fp32-emb4"),
     int4_embedding(64)),
    ("dq8ca-zp-binding-half", "adreno-8xx", "1.3", measured("llama16_d"), measured("llama_d")),
    ("embedding-q4-batches", "desktop", "1.5", int4_embedding(batch=2), int4_embedding()),
    ("embedding-q4-batches", "desktop", "1.3", int4_embedding(batch=2),
     int4_embedding(batch=2, storage="buffer")),
    ("embedding-q4-width-32", "desktop", "1.3", int4_embedding(48), int4_embedding(64)),
    ("sdpa-head-dim-4", "desktop", "1.5", attention(6), attention(8)),
    ("sdpa-half-sums", "desktop", "1.5", measured("half/attention"), measured("llama16_w")),
    ("buffer-half-sums", "desktop", "1.5", measured("half/bmm"), measured("llama16_w")),
    ("buffer-half-sums", "desktop", "1.3", measured("half/softmax"), measured("half/attention")),
    ("layer-norm-half-sums", "desktop", "1.5", measured("half/layer_norm"), measured("half/bmm")),
    ("dq8ca-half-scales", "desktop", "1.5", measured("half/dynamic"),
     dynamic(dtype="float16", storage="buffer")),
    ("sdpa-adreno750-padding", "adreno-7xx", "1.0", attention(8), sigmoid()),
    ("dynamic-no-resize", "desktop", "1.5", select(3), select(1)),
    ("gelu-tanh-nan", "mali-g76", "1.5", _GELU, sigmoid()),
    ("adreno-linear-rows", "adreno-8xx", "1.5", linear_rows(1024), linear_rows(1023)),
    ("adreno-linear-rows", "adreno-8xx", "1.5", linear_rows(1024), weight_only(1024)),
    ("adreno-convolution", "adreno-8xx", "1.5", _CONVOLUTION, sigmoid()),
    ("texture-metadata-limit", "desktop", "1.1", sigmoid(), sigmoid("buffer")),
    ("powervr-unsupported", "powervr", "1.3", sigmoid(), on_the_cpu),
    ("powervr-integer-dot-product", "powervr", "1.5", dynamic(), dynamic(1)),
    ("mali-q4-tile", "mali-g76", "1.3", weight_only(), weight_only(1)),
    ("adreno-dq8ca-decode", "adreno-8xx", "1.5", dynamic(1), weight_only()),
    ("choose-qparams-small-scale", "desktop", "1.5", dynamic(), dynamic(1)),
    ("context-overrun", "desktop", "1.5", attention(8), sigmoid()),
]  # fmt: skip
