"""A GGUF model requantized by ggml's own quantizer, which the wheel of `xllamacpp` exports."""

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from rewritten_gguf import rewritten_gguf

# What llama.cpp takes where rows are not a multiple of the 256 that K-quants need.
_FALLBACK = {Type.Q4_K: Type.Q5_0, Type.Q6_K: Type.Q8_0}


def q4_0(name: str, layers: int) -> Type:
    """Of llama.cpp's file type Q4_0: all but the table, which is the output layer too."""
    return Type.Q6_K if name == "token_embd.weight" else Type.Q4_0


def q4_k_m(name: str, layers: int) -> Type:
    """Of its file type Q4_K_M: more bits for the table, and for values and down projections in the
    first and last eighth of the layers and in every third between."""
    if name == "token_embd.weight":
        return Type.Q6_K
    index = int(name.split(".")[1])
    more = index < layers // 8 or index >= 7 * layers // 8 or (index - layers // 8) % 3 == 2
    return Type.Q6_K if more and ("attn_v" in name or "ffn_down" in name) else Type.Q4_K


def requantize(model: Path, path: Path, type_of: Callable[[str, int], Type]) -> Path:
    """The GGUF file `model`, its matrices in the types that `type_of` gives (name, layers)."""

    def encode(name: str, weight: np.ndarray, layers: int) -> tuple[np.ndarray, Type]:
        kind = type_of(name, layers) if weight.ndim == 2 else Type.F32
        if kind in _FALLBACK and weight.shape[-1] % 256:
            kind = _FALLBACK[kind]
        return (weight if kind == Type.F32 else _quantized(weight, kind)), kind

    return rewritten_gguf(model, path, encode)


def is_there() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def _quantized(weight: np.ndarray, kind: Type) -> np.ndarray:
    """`weight` float32 [N, K] as bytes [N, bytes of a row]."""
    weight = np.ascontiguousarray(weight, np.float32)
    rows, columns = weight.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    made = np.empty((rows, columns // block * size), np.uint8)
    quantize = _library().ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    sizes = (ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(columns))
    pointers = (ctypes.c_void_p(weight.ctypes.data), ctypes.c_void_p(made.ctypes.data))
    written = quantize(ctypes.c_int(kind), *pointers, *sizes, None)
    assert written == made.nbytes, (kind, written, made.nbytes)
    return made


def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("xllamacpp")
    assert found is not None and found.submodule_search_locations
    (library,) = Path(found.submodule_search_locations[0]).glob("xllamacpp.*.so")
    return ctypes.CDLL(str(library))
