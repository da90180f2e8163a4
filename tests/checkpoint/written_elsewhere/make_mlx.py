"""Makes mlx.safetensors with MLX itself; not run by the tests.

pip install --no-deps --target DIR mlx==0.32.4 mlx-cpu==0.32.4
PYTHONPATH=DIR python make_mlx.py mlx.safetensors
"""

import sys

import mlx.core as mx
import numpy as np

made = {}
for bits in (1, 2, 3, 4, 5, 6, 8):
    weight = mx.array(np.random.default_rng(bits).standard_normal((8, 128)).astype(np.float32))
    weight = mx.concatenate([weight[:7], mx.full((1, 128), 0.25)])  # a row of equal weights too
    packed, scales, biases = mx.quantize(weight, group_size=64, bits=bits)
    read = mx.dequantize(packed, scales, biases, group_size=64, bits=bits)
    made |= {f"{bits}.weight": packed, f"{bits}.scales": scales, f"{bits}.biases": biases}
    made[f"{bits}.read"] = read
mx.save_safetensors(sys.argv[1], made)
