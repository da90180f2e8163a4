"""Small files in the layout of Meta's quantized Llama 3.2 releases, QLoRA and SpinQuant.

The releases are gated; these follow names, dtypes and params.json as ExecuTorch's exporter and
Meta's llama_models read them.
"""

import torch
from tests.support.models import tiny_models as tiny

HIDDEN = 128  # a power of two, as 8192 is
PARAMS = tiny.PARAMS | {
    "hidden_dim": None,
    "ffn_dim_multiplier": 0.75,
    "multiple_of": 64,
    "use_scaled_rope": True,
    "quantization_args": {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32},
}
LORA = {"lora_args": {"rank": 16, "scale": 2.0}}
SPINQUANT = {"quantization_args": PARAMS["quantization_args"] | {"spinquant": True}}


def release_tensors(adaptors=False):
    """bfloat16 scales and norms, int8 embedding and output with scales [N, 1]."""
    generator = torch.Generator().manual_seed(0)
    tensors = tiny.int4_tensors(embedding="int8", output="int8")
    for layer in range(2):
        for name, shape in (("w1", (HIDDEN, 64)), ("w2", (64, HIDDEN)), ("w3", (HIDDEN, 64))):
            linear = f"layers.{layer}.feed_forward.{name}"
            tensors[f"{linear}.weight"] = torch.randint(
                -8, 8, shape, dtype=torch.int8, generator=generator
            )
            scales = torch.rand((shape[0], shape[1] // 32), generator=generator)
            tensors[f"{linear}.scales"] = scales * 0.02 + 0.001
    for name in list(tensors):
        if name.endswith(".scales") and name.startswith("layers."):
            linear = name.removesuffix(".scales")
            rows, columns = tensors[f"{linear}.weight"].shape
            if adaptors:
                a, b = (
                    torch.randn(shape, generator=generator) * 0.02
                    for shape in ((16, columns), (rows, 16))
                )
                tensors |= {f"{linear}.adaptor.A.weight": a, f"{linear}.adaptor.B.weight": b}
    tensors = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    for table in ("tok_embeddings", "output"):
        tensors[f"{table}.scales"] = tensors[f"{table}.scales"].reshape(-1, 1)
    return tensors


def write_release(folder, tensors, **params):
    return tiny.write_checkpoint(folder, tensors, "consolidated.00.pth", **PARAMS | params)
