"""Blocks of GGUF's Q4_0: random ones, and ggml's own of normal weights."""

import gguf
import numpy as np
import torch


def blocks_of(seed, least=-8):
    rng = np.random.default_rng(seed)
    values = rng.integers(least, 8, (8, 96)).astype(np.int8)
    scales = rng.normal(size=(8, 3)).astype(np.float16)
    scales[0, 0] = 0
    return torch.from_numpy(values), torch.from_numpy(scales.astype(np.float32))


def blocks_of_ggml():
    """(integers, scales, weights as the gguf package has them) of normal weights."""
    weight = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).numpy()
    packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q4_0)
    source = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0))
    blocks = packed.reshape(512, -1, 18)
    scales = torch.from_numpy(blocks[..., :2].copy().view(np.float16)[..., 0].astype(np.float32))
    packed4 = blocks[..., 2:]
    values = np.concatenate((packed4 & 15, packed4 >> 4), -1).astype(np.int8) - 8
    return torch.from_numpy(values.reshape(512, -1)), scales, source


def weight_of(values, scales):
    return (values.view(*scales.shape, 32) * scales[..., None]).view(values.shape)
