"""The random models of `artifacts/`, and what ExecuTorch's own quantizer makes of their linears."""

import json
from pathlib import Path
from typing import Any

import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from executorch.examples.models.llama.source_transformation.quantize import quantize
from executorch.extension.llm.export.builder import DType
from tests.support.models.tiny_programs import write_word_tokenizer

CONTEXT = 32
LLAMA = {
    "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 64,
    "hidden_dim": 96, "norm_eps": 1e-5, "rope_theta": 10000.0, "multiple_of": 1,
}  # fmt: skip
QWEN = LLAMA | {"use_hf_rope": True, "attention_qkv_bias": True, "use_qk_norm": True,
                "qk_norm_before_rope": True, "n_layers": 1}  # fmt: skip
LFM2 = QWEN | {"attention_qkv_bias": False, "n_layers": 2,
               "layer_types": ["conv", "full_attention"]}  # fmt: skip


def model_args(params: dict[str, Any]) -> ModelArgs:
    limits = {"max_seq_len": CONTEXT, "max_context_len": CONTEXT}
    return ModelArgs(**params, **limits, use_kv_cache=True, enable_dynamic_shape=True)


def random_weights(params: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights large enough that logits differ clearly, norms around one."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) * 0.08 + ("norm" in name)
        for name, value in construct_transformer(model_args(params)).state_dict().items()
        if "cache" not in name
    }


def write_peer_checkpoint(folder: Path, params: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Write what a program of `artifacts/` was made of as a checkpoint of Meta's, with a tokenizer
    of words; returns its tensors."""
    model = construct_transformer(model_args(params)).eval()
    model.load_state_dict(random_weights(params), strict=False)
    model = quantize(model, "8da4w", computation_dtype=DType.fp32, group_size=32)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if hasattr(tensor, "qdata"):
            tensors |= {name: tensor.qdata, name.replace(".weight", ".scales"): tensor.scale}
        elif name.endswith((".weight", ".bias")):
            tensors[name] = tensor
    arguments = {"quantization_args": {"scheme": "8da4w_qat", "group_size": 32}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params | arguments))
    write_word_tokenizer(folder, params["vocab_size"])
    torch.save(tensors, folder / "model.pth")
    return tensors
