"""Whole small models in the formats of other quantizers.

torchao's are written by torchao. GPTQ, AWQ and compressed-tensors are packed here as their
writers pack (test_written_elsewhere.py holds that against files of the writers themselves).
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.support.models import tiny_models as tiny

GROUP = 32
_SHIFTS = torch.arange(0, 32, 4)
_AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def pack_words(numbers: torch.Tensor) -> torch.Tensor:
    """[R, 8C] numbers 0 to 15 to int32 [R, C], the first in the low bits."""
    words = (numbers.long().unflatten(1, (-1, 8)) << _SHIFTS).sum(-1)
    return (words - ((words >> 31) << 32)).int()  # as a signed word


def pack_gptq(values, scales, zeros=None, group_of=None, v2=False) -> dict[str, torch.Tensor]:
    """`values` int8 [N, K], `scales` [N, G], `zeros` [N, G] around 0."""
    zeros = torch.zeros_like(scales) if zeros is None else zeros
    columns = values.shape[1]
    if group_of is None:
        group_of = torch.arange(columns) // (columns // scales.shape[1])
    return {
        "qweight": pack_words(values + 8).t(),  # [N, K/8] -> [K/8, N]
        "qzeros": pack_words((zeros + 8 - int(not v2)).t()),
        "scales": scales.t(),
        "g_idx": group_of.int(),
    }


def pack_awq(values, scales, zeros=None) -> dict[str, torch.Tensor]:
    zeros = torch.zeros_like(scales) if zeros is None else zeros

    def pack(matrix):  # [N, R] -> [R, N/8]
        numbers = (matrix + 8).t().unflatten(1, (-1, 8))[..., _AWQ_ORDER]
        return pack_words(numbers.flatten(1))

    return {"qweight": pack(values), "qzeros": pack(zeros), "scales": scales.t()}


def pack_compressed(values, scales, zeros=None) -> dict[str, torch.Tensor]:
    parts = {
        "weight_packed": pack_words(values + 8),
        "weight_scale": scales,
        "weight_shape": torch.tensor(values.shape),
    }
    if zeros is not None:
        parts["weight_zero_point"] = pack_words((zeros + 8).t()).t()
    return parts


SETTINGS = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True},
    "gptq_v2": {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "int", "symmetric": True},
                "input_activations": None,
            }
        },
        "ignore": ["lm_head"],
    },
}
PACK = {
    "gptq": pack_gptq,
    "gptq_v2": lambda *linear: pack_gptq(*linear, v2=True),
    "awq": pack_awq,
    "compressed-tensors": pack_compressed,
}


def layer_linears(tensors: dict[str, torch.Tensor]) -> list[str]:
    """The layers' linears, by name, in a checkpoint's tensors."""
    return [
        name.removesuffix(".scales")
        for name in tensors
        if name.startswith("layers.") and name.endswith(".scales")
    ]


def expected_tensors() -> dict[str, torch.Tensor]:
    """What the folders below stand for: int4 layers, float16 scales, float16 tables."""
    tensors = tiny.int4_tensors(embedding="fp")
    tensors.pop("output.scales")
    tensors["output.weight"] = tiny.float_tensors()["output.weight"]
    for name in layer_linears(tensors):
        tensors[f"{name}.scales"] = tensors[f"{name}.scales"].half()
    return {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in tensors.items()
    }


def write_quantized(folder: Path, method: str, zeros=None, settings=None, shards=1) -> Path:
    """`expected_tensors` as a folder of `method`; `zeros` (name -> [N, G]) makes some
    linears asymmetric; `settings` replace those of quantization_config."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = expected_tensors()
    named = {}
    for name in layer_linears(tensors):
        linear = [tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.scales")]
        if zeros and name in zeros:
            linear.append(zeros[name])
        elif zeros and method == "compressed-tensors":
            linear.append(torch.zeros_like(linear[1]))
        module = tiny.renamed(f"{name}.x", tiny.HF_NAMES, "model.layers").removesuffix(".x")
        named |= {
            f"{module}.{part}": tensor.contiguous()
            for part, tensor in PACK[method](*linear).items()
        }
    for name, tensor in tensors.items():
        named[tiny.renamed(name, tiny.HF_NAMES, "model.layers")] = tensor
    config = tiny.HUGGING_FACE | {"quantization_config": SETTINGS[method] | (settings or {})}
    (folder / "config.json").write_text(json.dumps(config))
    tiny.save_shards(named, folder, shards)
    return folder


def torchao_model(symmetric=True, dynamic=True, embedding=True, group=GROUP):
    """A tiny transformers Llama quantized by torchao's own `quantize_`."""
    from torchao.quantization import (
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        MappingType,
        PerAxis,
        PerGroup,
        quantize_,
    )
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    fields = {key: value for key, value in tiny.HUGGING_FACE.items() if key != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(**fields)).to(torch.bfloat16)
    mapping = MappingType.SYMMETRIC if symmetric else MappingType.ASYMMETRIC
    if dynamic:
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4,
            weight_granularity=PerGroup(group),
            weight_mapping_type=mapping,
        )
    else:
        config = IntxWeightOnlyConfig(
            weight_dtype=torch.int4, granularity=PerGroup(group), mapping_type=mapping
        )
    quantize_(model, config)
    if embedding:
        quantize_(
            model,
            IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)),
            lambda module, _: isinstance(module, torch.nn.Embedding),
        )
    return model


def write_torchao(folder: Path, pickled=False, settings=True, **options) -> tuple[Path, dict]:
    """(a folder of `torchao_model`, the model's state dict)."""
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach() for name, tensor in torchao_model(**options).state_dict().items()
    }
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        plain, metadata = flatten_tensor_state_dict(state)
        save_file(plain, folder / "model.safetensors", metadata)
    config = dict(tiny.HUGGING_FACE)
    if settings:
        config["quantization_config"] = {"quant_method": "torchao", "quant_type": {"default": {}}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, state
