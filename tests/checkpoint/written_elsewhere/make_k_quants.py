"""Makes k_quants.safetensors with ggml's own quantizers; not run by the tests.

    pip download --no-deps ctransformers==0.2.27    # unpack into DIR; holds ggml built for the CPU
    python make_k_quants.py DIR

Per type: the bytes that ggml makes of one random matrix, and what ggml reads back from them.
"""

import ctypes
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

ROWS, COLUMNS = 4, 512
TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


class InitParameters(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def main(folder: Path) -> None:
    ggml = ctypes.CDLL(str(next(folder.glob("**/lib/basic/libctransformers.so"))))
    ggml.ggml_init.restype = ctypes.c_void_p
    ggml.ggml_init(InitParameters(1 << 20, None, False))  # fills its table of float16
    weight = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    tensors = {}
    for kind in TYPES:
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        name = kind.lower().replace("_k", "_K")
        packed = np.zeros((ROWS, COLUMNS // block * block_bytes), np.uint8)
        histogram = (ctypes.c_int64 * 256)()
        getattr(ggml, f"ggml_quantize_{name}")(
            weight.ctypes.data_as(ctypes.c_void_p),
            packed.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int(weight.size),
            ctypes.c_int(weight.size),  # as one row: of several it does the first alone
            histogram,
        )
        tensors[f"{kind}.packed"] = torch.from_numpy(packed)
        read = np.zeros_like(weight)
        getattr(ggml, f"dequantize_row_{name}")(
            packed.ctypes.data_as(ctypes.c_void_p),
            read.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int(weight.size),
        )
        tensors[f"{kind}.read"] = torch.from_numpy(read)
        print(kind, float(np.abs(read - weight).max()))
    save_file(tensors, Path(__file__).with_name("k_quants.safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
