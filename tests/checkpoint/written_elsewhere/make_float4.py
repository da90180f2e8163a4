"""Makes float4.safetensors with the formats' own writers; not run by the tests.

pip install --no-deps --target DIR mlx==0.32.4 mlx-cpu==0.32.4 compressed-tensors==0.20.1 \
    bitsandbytes==0.50.2 loguru psutil
PYTHONPATH=DIR python make_float4.py float4.safetensors
"""

import sys

import bitsandbytes.functional as bnb
import mlx.core as mx
import numpy as np
import torch
from compressed_tensors.compressors.mx_utils import compress_mx_scale
from compressed_tensors.compressors.mxfp6.helpers import pack_fp6_to_uint8, unpack_fp6_from_uint8
from compressed_tensors.compressors.nvfp4.helpers import (
    quantize_and_pack_fp4,
    unpack_fp4_from_uint8,
)
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file

ROWS, COLUMNS = 32, 64
made: dict[str, torch.Tensor] = {}
for mode, bits, group in (("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)):
    weight = mx.array(np.random.default_rng(group).standard_normal((ROWS, COLUMNS)))
    packed, scales = mx.quantize(weight.astype(mx.float32), group_size=group, bits=bits, mode=mode)
    read = mx.dequantize(packed, scales, group_size=group, bits=bits, mode=mode, dtype=mx.float32)
    parts = {"weight": packed, "scales": scales, "read": read}
    made |= {f"{mode}.{name}": torch.from_numpy(np.array(part)) for name, part in parts.items()}

for preset in ("NVFP4A16", "MXFP4A16"):
    args = preset_name_to_scheme(preset, ["Linear"]).weights
    weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    groups = weight.unflatten(1, (-1, args.group_size))
    own = generate_gparam(weight.min(), weight.max()) if preset == "NVFP4A16" else None
    scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args, global_scale=own)
    if own is not None:
        scale = scale.to(torch.float8_e4m3fn).float()
    packed = quantize_and_pack_fp4(weight, scale, global_scale=own, group_size=args.group_size)
    numbers = unpack_fp4_from_uint8(packed, ROWS, COLUMNS, dtype=torch.float32)
    read = dequantize(numbers, scale, args=args, global_scale=own, dtype=torch.float32)
    made |= {f"{preset}.weight_packed": packed, f"{preset}.read": read}
    if own is None:
        made[f"{preset}.weight_scale"] = compress_mx_scale(scale, torch.uint8)
    else:
        made[f"{preset}.weight_scale"] = scale.to(torch.float8_e4m3fn)
        made[f"{preset}.weight_global_scale"] = own.reshape(1)
args = preset_name_to_scheme("MXFP6A16", ["Linear"]).weights
weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
groups = weight.unflatten(1, (-1, args.group_size))
scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
packed = pack_fp6_to_uint8(quantize(weight, scale, None, args))
numbers = unpack_fp6_from_uint8(packed, ROWS, COLUMNS, dtype=torch.float32)
made |= {
    "MXFP6A16.weight_packed": packed,
    "MXFP6A16.weight_scale": compress_mx_scale(scale, torch.uint8),
    "MXFP6A16.read": dequantize(numbers, scale, args=args, dtype=torch.float32),
}
for kind, nested in (("nf4", True), ("fp4", False)):
    packed, state = bnb.quantize_4bit(weight, None, None, 64, nested, kind)
    parts = {f"weight.{name}": part for name, part in state.as_dict(packed=True).items()}
    parts |= {"weight": packed, "read": bnb.dequantize_4bit(packed, state)}
    made |= {f"{kind}.{name}": part for name, part in parts.items()}
packed, scales, _ = bnb.int8_vectorwise_quant(weight.half())
made |= {
    "int8.weight": packed,
    "int8.SCB": scales,
    "int8.weight_format": torch.zeros((), dtype=torch.uint8),
}
made["int8.read"] = packed * (scales / 127)[:, None]
save_file({name: part.contiguous() for name, part in made.items()}, sys.argv[1])
