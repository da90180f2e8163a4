"""Programs that meet a defect of an operator's kernel, each beside one that does not."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.driver_defects import Make, peer
from tests.support.paths import CONFORMANCE, REAL_RUNTIME
from tests.support.programs import GraphMaker, artifact

from quatrain.program import ValueList


def measured(name: str) -> Make:
    """A program that ExecuTorch's own runtime was measured with."""

    def make(folder: Path) -> Path:
        for path in (CONFORMANCE / f"{name}.pte", REAL_RUNTIME / f"{name}.pte"):
            if path.exists():
                return path
        pytest.skip(f"{name}.pte is not here")

    return make


def call(kind: str, *tensors: tuple, plain: tuple = (), out: tuple = (1, 4)) -> Make:
    """One operator on inputs, given as (dtype, shape), and null or fixed values after them."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        args = [maker.input(dtype, *shape) for dtype, *shape in tensors]
        args += [maker.plain(*value) for value in plain]
        result = maker.tensor(tensors[0][0], *out)
        maker.call(kind, *args, result)
        return maker.save(folder / "call.pte", [result])

    return make


def embedding(layout: str, tokens: int = 8) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        table = maker.constant(np.zeros((16, 4), dtype=np.float32))
        indices = maker.tensor("int32", 1, tokens, storage="texture3d", layout=layout)
        maker.graph.inputs.append(indices)
        out = maker.tensor("float32", 1, tokens, 4, storage="texture3d", layout=layout)
        null, false = maker.plain("null"), maker.plain("bool", False)
        maker.call("aten.embedding.default", table, indices, null, false, false, out)
        return maker.save(folder / "embedding.pte", [out])

    return make


def int4_embedding(width: int) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        weights = maker.constant(np.zeros((16, width // 2), dtype=np.uint8))
        scales = maker.constant(np.ones((16, 1), dtype=np.float32))
        indices = maker.input("int32", 1, 8)
        out = maker.tensor("float32", 1, 8, width)
        group, tied = maker.plain("int", width), maker.plain("bool", False)
        name = "et_vk.embedding_q4gsw.default"
        maker.call(name, weights, scales, group, indices, tied, out)
        return maker.save(folder / "embedding.pte", [out])

    return make


def weight_only(
    rows: int = 8, channels: int = 64, dtype: str = "float32", bias: bool = False, batch: int = 1
) -> Make:
    """A weight-only linear of 64 inputs."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input(dtype, batch, rows, 64)
        weights = maker.constant(np.zeros((channels, 32), dtype=np.uint8))
        scales = maker.constant(np.ones((2, channels), dtype=dtype))
        group = maker.plain("int", 32)
        last = maker.constant(np.ones(channels, dtype=dtype)) if bias else maker.plain("null")
        out = maker.tensor(dtype, batch, rows, channels)
        maker.call("et_vk.linear_q4gsw.default", x, weights, scales, group, last, out)
        return maker.save(folder / "weight-only.pte", [out])

    return make


def dynamic(
    rows: int = 8,
    group_size: int = 32,
    dtype: str = "float32",
    zero_points: str = "int8",
    storage: str = "texture3d",
) -> Make:
    """A dynamic int4 linear of 256 inputs and the choice of its scales."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input(dtype, 1, rows, 256)
        scales = maker.tensor(dtype, 1, rows)
        zeros = maker.tensor(zero_points, 1, rows)
        groups = 256 // group_size
        weights = maker.constant(np.zeros((8, 128), dtype=np.uint8))
        sums = maker.constant(np.zeros((groups, 8), dtype=np.int32))
        weight_scales = maker.constant(np.ones((groups, 8), dtype=dtype))
        out = maker.tensor(dtype, 1, rows, 8, storage=storage)
        null, group = maker.plain("null"), maker.plain("int", group_size)
        chosen = [x, *(null for _ in range(9))]
        maker.call("torchao.choose_qparams_affine.default", *chosen,
                   maker.add(ValueList((scales, zeros))))  # fmt: skip
        maker.call("et_vk.linear_dq8ca_q4gsw.default", x, scales, zeros, weights, sums,
                   weight_scales, group, null, out)  # fmt: skip
        return maker.save(folder / "dynamic.pte", [out])

    return make


def rotary(kind: str, width: int = 8, head: int = 16, keys: int = 2) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.input("float32", 1, 8, 2, head)
        k = maker.input("float32", 1, 8, keys, head)
        tables = [maker.input("float32", 8, width) for _ in range(2)]
        more = [maker.plain("int", 0)] if kind.endswith("hf") else []
        out = maker.tensor("float32", 1, 8, 2, head)
        maker.call(f"{kind}.default", x, k, *tables, *more, out)
        return maker.save(folder / "rotary.pte", [out])

    return make


def attention(head: int, storage: str = "buffer") -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        q = maker.tensor("float32", 1, 8, 2, head, storage=storage)
        maker.graph.inputs.append(q)
        null = maker.plain("null")
        out = maker.tensor("float32", 1, 8, 2, head, storage=storage)
        maker.call("sdpa_with_kv_cache.default", q, *(null for _ in range(10)), out)
        return maker.save(folder / "attention.pte", [out])

    return make


def select(places: int) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, index = maker.input("float32", 1, 8, 4), maker.input("int32", places)
        out = maker.tensor("float32", 1, places, 4)
        maker.call("aten.index_select.default", x, maker.plain("int", 1), index, out)
        return maker.save(folder / "select.pte", [out])

    return make


def linear_rows(rows: int) -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x, out = maker.input("float32", 1, rows, 8), maker.tensor("float32", 1, rows, 8)
        weight = maker.constant(np.ones((8, 8), dtype=np.float32))
        maker.call("aten.linear.default", x, weight, maker.plain("null"), out)
        return maker.save(folder / "linear.pte", [out])

    return make


def sigmoid(storage: str = "texture3d", name: str = "aten.sigmoid.default") -> Make:
    def make(folder: Path) -> Path:
        maker = GraphMaker()
        x = maker.tensor("float32", 4, storage=storage)
        maker.graph.inputs.append(x)
        out = maker.tensor("float32", 4, storage=storage)
        maker.call(name, x, out)
        return maker.save(folder / "sigmoid.pte", [out])

    return make


def on_the_cpu(folder: Path) -> Path:
    return artifact("peer-xnnpack-8da4w")


_HF, _INTERLEAVED = "et_vk.apply_rotary_emb_hf", "et_vk.apply_rotary_emb"
_GELU = call("aten.gelu.default", ("float32", 1, 4), plain=(("string", "tanh"),))
_CONVOLUTION = call("aten.convolution.default", ("float32", 1, 4, 4, 4), plain=(("null",),) * 8)

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
    ("dq8ca-zp-dtype", "desktop", "1.4", dynamic(zero_points="int32"), dynamic()),
    ("dq8ca-half-sums", "desktop", "1.5", dynamic(dtype="float16", storage="buffer", group_size=64),
     dynamic(dtype="float16", group_size=64)),
    ("dq8ca-half-sums", "desktop", "1.5", dynamic(dtype="float16", storage="buffer", group_size=64),
     dynamic(dtype="float16", storage="buffer")),
    ("q4gsw-n4", "desktop", "1.4", weight_only(channels=98), weight_only(channels=96)),
    ("q4gsw-n4", "mali-g715", "1.5", measured("n98_w"), measured("llama_w")),
    ("int4-linear-batches", "desktop", "1.5", weight_only(batch=3), weight_only()),
    ("q4gsw-bias-dropped", "desktop", "1.2", weight_only(bias=True), weight_only()),
    ("q4gsw-half-accumulation", "desktop", "1.4", weight_only(dtype="float16"), weight_only()),
    ("rotary-width-8", "desktop", "1.3", rotary(_HF, 12), rotary(_HF, 8)),
    ("rotary-width-8", "mali-g715", "1.5", measured("hd12_w"), measured("llama_w")),
    ("rotary-interleaved-tail", "desktop", "1.0", rotary(_INTERLEAVED, head=12),
     rotary(_INTERLEAVED, head=16)),
    ("rotary-hf-kv-heads", "desktop", "1.3", rotary(_HF, keys=4), rotary(_HF, keys=2)),
    ("embedding-q4-dynamic-oob", "mali-g710", None, peer("peer-8da4w-fp32-emb4"),
     int4_embedding(64)),
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
