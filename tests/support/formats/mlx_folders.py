"""Models of transformers as mlx-lm saves them, in floating point and quantized.

What is laid out otherwise is what `sanitize` of mlx-lm's models does.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.formats.quantized_folders import GROUP, pack_words

from quatrain.quantize.methods.round_to_nearest import quantize_groups

_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight",
          "q_norm.weight", "k_norm.weight")  # fmt: skip
_FILTERS = ("conv.weight", "conv1d.weight")
_EXPERTS_OF_GRANITE = tuple(f"block_sparse_moe.experts.{kind}_proj" for kind in ("gate_up", "down"))
_RENAMED = {
    "lfm2_moe": (("w1.weight", "gate_proj.weight"), ("w2.weight", "down_proj.weight"),
                 ("w3.weight", "up_proj.weight")),
    "granitemoe": (("input_linear.weight", "experts.gate_up_proj"),
                   ("output_linear.weight", "experts.down_proj")),
    "granitemoehybrid": (("block_sparse_moe.input_linear.weight", _EXPERTS_OF_GRANITE[0]),
                         ("block_sparse_moe.output_linear.weight", _EXPERTS_OF_GRANITE[1])),
    "qwen3_vl": (("model.visual.", "vision_tower."), ("lm_head.", "language_model.lm_head."),
                 ("model.language_model.", "language_model.model.")),  # mlx-vlm's
}  # fmt: skip


def write_mlx_model(folder: Path, model: transformers.PreTrainedModel, quantized: bool) -> Path:
    """`model` as mlx-lm converts it; `quantized`: all its matrices in 4 bits, which become what
    they were rounded to in `model` itself."""
    llama4 = model.config.model_type == "llama4_text"  # experts [K, N]
    for name, parameter in model.named_parameters() if quantized else ():
        if _is_matrix(name, parameter):
            turned = llama4 and parameter.ndim == 3
            rows = parameter.transpose(1, 2).contiguous() if turned else parameter
            rounded = _read(*quantize_groups(rows.flatten(0, -2), GROUP)).view(rows.shape)
            parameter.copy_(rounded.transpose(1, 2) if turned else rounded)
    model.save_pretrained(folder, save_original_format=False)  # all experts of a kind in one
    file = folder / "model.safetensors"
    tensors = _sanitized(load_file(file), model.config.model_type)
    if quantized:
        for name in [name for name, tensor in tensors.items() if _is_matrix(name, tensor)]:
            tensors |= _packed(name, tensors[name])
        config = folder / "config.json"
        said = {"quantization": {"group_size": GROUP, "bits": 4, "mode": "affine"}}
        config.write_text(json.dumps(json.loads(config.read_text()) | said))
    save_file({name: t.contiguous() for name, t in tensors.items()}, file, {"format": "mlx"})
    return folder


def _is_matrix(name: str, tensor: torch.Tensor) -> bool:
    return tensor.ndim > 1 and tensor.shape[-1] % GROUP == 0 and not name.endswith(_FILTERS)


def _read(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return (values.unflatten(1, (-1, GROUP)) * scales[..., None]).flatten(1)


def _packed(name: str, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    values, scales = quantize_groups(matrix.flatten(0, -2), GROUP)
    parts = {
        "weight": pack_words(values + 8).view(torch.uint32),
        "scales": scales,
        "biases": -8 * scales,
    }
    module = name.removesuffix("weight")
    return {f"{module}{part}": t.view(*matrix.shape[:-1], -1) for part, t in parts.items()}


def _sanitized(tensors: dict[str, torch.Tensor], model_type: str) -> dict[str, torch.Tensor]:
    has_delta_rules = any(name.endswith("linear_attn.conv1d.weight") for name in tensors)
    has_experts = any(".experts." in name or "block_sparse_moe" in name for name in tensors)
    found = {}
    for name, tensor in tensors.items():
        for old, new in _RENAMED.get(model_type, ()):
            name = name.replace(old, new)
        if name.endswith(_FILTERS):
            tensor = tensor.transpose(1, 2)
        elif has_delta_rules and name.endswith(_NORMS):
            tensor = tensor + 1.0
        if ".shared_mlp." in name and not has_experts:
            found |= _without_experts(name, tensor)
        else:
            found |= _of_all_experts(name, tensor, model_type)
    return found


def _without_experts(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a Granite 4 the only feed-forward, under the usual names."""
    module, _, part = name.partition("shared_mlp.")
    if part == "output_linear.weight":
        return {f"{module}mlp.down_proj.weight": tensor}
    halves = zip(("gate", "up"), tensor.chunk(2), strict=True)
    return {f"{module}mlp.{kind}_proj.weight": half for kind, half in halves}


def _of_all_experts(name: str, tensor: torch.Tensor, model_type: str) -> dict[str, torch.Tensor]:
    """A tensor of `name`, or what all experts' matrices in one are in MLX."""
    module, is_experts, part = name.partition("experts.")
    if not is_experts or tensor.ndim != 3:
        return {name: tensor}
    if model_type == "llama4_text":
        tensor, called = tensor.transpose(1, 2), f"{module}experts"
    else:
        called = f"{module}switch_mlp"
    if part != "gate_up_proj":
        return {f"{called}.down_proj.weight": tensor}
    gate, up = tensor.chunk(2, dim=1)
    return {f"{called}.gate_proj.weight": gate, f"{called}.up_proj.weight": up}
