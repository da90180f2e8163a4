"""Attention and rotary embeddings in a form that a phone's runtime refuses, or computes as another,
beside ones that it takes. Each form was run on ExecuTorch's runtime."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.support.defects.kernel_defects import measured
from tests.support.defects.load_checks import attention
from tests.support.defects.one_operator import NULL, Make, T, call
from tests.support.paths import CONFORMANCE
from tests.support.programs import GraphMaker

from quatrain.program import open_program, write_program

_ATTENTION = "sdpa_with_kv_cache"
_QUERY, _KEYS = T((1, 2, 5, 16)), T((1, 2, 8, 16))


def fused_attention(
    positions: int, width: int, of_values: int, storage: str = "buffer", dtype: str = "float32"
) -> Make:
    q, k, v = (
        T((1, 2, rows, wide), dtype, storage)
        for rows, wide in ((5, width), (positions, width), (positions, of_values))
    )
    out = T((1, 2, 5, of_values), dtype, storage)
    return call("et_vk.sdpa.default", q, k, v, NULL, NULL, out)


def fused(query: T = _QUERY, keys: T = _KEYS, values: T = _KEYS) -> Make:
    return call("et_vk.sdpa.default", query, keys, values, NULL, NULL, query)


def shared_caches(folder: Path) -> Path:
    program = open_program(CONFORMANCE / "llama_w.pte")
    graph = program.vulkan
    first, second = (i for i, op in enumerate(graph.operators) if op.kind == _ATTENTION)
    caches = {name: graph.operators[first].named_args[name] for name in ("k_cache", "v_cache")}
    given = graph.operators[second].named_args | caches
    graph.operators[second] = replace(graph.operators[second], args=tuple(given.values()))
    write_program(program, folder / "shared.pte")
    return folder / "shared.pte"


def filled_cache(value: float) -> Make:
    """Attention whose keys are stored as that number."""

    def make(folder: Path) -> Path:
        maker = GraphMaker()
        q = maker.input("float32", 1, 8, 2, 8)
        keys, values = (
            maker.constant(np.full((1, 32, 2, 8), number, np.float32)) for number in (value, 0)
        )
        fixed = [("int", 0), ("int", 8), NULL, ("double", 0.0), ("bool", True), NULL]
        options = [maker.plain(*one) for one in fixed]
        out = maker.tensor("float32", 1, 8, 2, 8)
        maker.call(f"{_ATTENTION}.default", q, q, q, keys, values, *options, out)
        return maker.save(folder / "cache.pte", [out])

    return make


def rotated(query_heads: int = 4, key_heads: int = 2, **more: T) -> Make:
    """`more` replaces the keys or the tables."""
    q, table = T((1, 5, query_heads, 16)), T((5, 8))
    k = more.get("keys", T((1, 5, key_heads, 16)))
    cos, sin = more.get("cos", table), more.get("sin", more.get("cos", table))
    return call("et_vk.apply_rotary_emb.default", q, k, cos, sin, [q, k])


def interleaved(storage: str) -> Make:
    x, table = T((2, 5, 16)), T((1, 5, 8, 2), storage=storage)
    return call("et_vk.apply_rotary_emb_interleaved.default", x, table, x)


# defect, a program that has it, one that does not
ATTENTION_FORMS: list[tuple[str, Make, Make]] = [
    ("sdpa-own-caches", shared_caches, measured("llama_w")),
    ("sdpa-own-caches", filled_cache(0.5), filled_cache(0.0)),
    ("sdpa-fused-buffers", fused_attention(6, 16, 16), fused_attention(8, 16, 16)),
    ("sdpa-fused-buffers", fused_attention(8, 10, 10), fused_attention(6, 10, 10, "texture3d")),
    ("sdpa-fused-buffers", fused_attention(8, 16, 24, "texture3d"),
     fused_attention(8, 16, 8, "texture3d")),
    ("sdpa-half-sums", fused_attention(1500, 64, 64, dtype="float16"),
     fused_attention(512, 64, 64, dtype="float16")),
    ("rotary-hf-kv-heads", rotated(2, 4), rotated(4, 2)),
    ("rotary-hf-tables", interleaved("texture3d"), interleaved("buffer")),
    ("rotary-hf-tables", rotated(cos=T((5, 4))), rotated()),
    ("rotary-hf-tables", rotated(sin=T((6, 8))), rotated(cos=T((6, 8)))),
    ("rotary-hf-tables", rotated(keys=T((1, 5, 2, 8))), rotated()),
    ("rotary-hf-tables", rotated(keys=T((1, 4, 2, 16))), rotated()),
    ("rotary-hf-tables", rotated(cos=T((5, 8), layout="height_packed")), rotated()),
    ("sdpa-shapes", attention(cache=T((1, 32, 4, 8))), attention()),
    ("sdpa-shapes", fused(values=T((1, 2, 12, 16))), fused()),
    ("sdpa-shapes", fused(keys=T((1, 2, 8, 16), layout="height_packed")), fused()),
    ("sdpa-shapes", fused(T((2, 5, 16)), T((2, 8, 16)), T((2, 8, 16))), fused()),
    ("storage-mixed", attention(cache=T((1, 32, 2, 8), storage="buffer")), interleaved("buffer")),
]  # fmt: skip
