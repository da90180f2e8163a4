"""Models of transformers as quantizers' folders, and those models on the values they hold."""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from transformers.pytorch_utils import Conv1D

from quatrain.quantize.methods.round_to_nearest import quantize_groups

LINEARS = (
    "per_layer_input_gate.weight",
    "laurel.linear_left.weight",
    "laurel.linear_right.weight",
    *(f"_projections.{stream}.weight" for stream in range(3)),
    "_projection.weight",
    "_proj.weight",
    ".kv_a_proj_with_mqa.weight",
    ".in_proj_qkv.weight",
    ".in_proj_qkvz.weight",
    ".in_proj_z.weight",
    "_linear.weight",
    ".self_attn.dense.weight",
    ".c_fc.weight",
    ".c_attn.weight",
    ".query_key_value.weight",
    ".attn.out_proj.weight",
    ".fc_in.weight",
    ".fc_out.weight",
    ".attention.dense.weight",
    ".dense_h_to_4h.weight",
    ".dense_4h_to_h.weight",
    ".fc1.weight",
    ".fc2.weight",
    ".w1.weight",
    ".w2.weight",
    ".w3.weight",
)
METHODS = ("gptq", "awq", "compressed-tensors")
_HALF = {"gate_proj": 0, "up_proj": 1}


def write_quantized_model(folder: Path, model: transformers.PreTrainedModel, method: str) -> Path:
    """`model` as a folder of `method`, its linears int4; they become what they were rounded to
    in `model` itself."""
    model.save_pretrained(folder, save_original_format=False)  # the names of its own state
    file = folder / "model.safetensors"
    tensors = _experts_one_by_one(load_file(file), model)
    rounded = {}
    for name in list(tensors):
        sees = name.startswith("model.visual.")  # left in floating point, as releases have it
        if name.endswith(LINEARS) and not sees:
            matrix = tensors.pop(name)
            columns_first = isinstance(_module_of(name, model), Conv1D)
            values, scales = quantize_groups(matrix.T if columns_first else matrix, folders.GROUP)
            groups = values.unflatten(1, (-1, folders.GROUP))
            matrix = (groups * scales[..., None]).flatten(1)
            rounded[name] = matrix.T if columns_first else matrix
            for part, packed in folders.PACK[method](values, scales).items():
                tensors[name.replace("weight", part)] = packed.contiguous()
    save_file(tensors, file)
    config = folder / "config.json"
    said = json.loads(config.read_text()) | {"quantization_config": folders.SETTINGS[method]}
    config.write_text(json.dumps(said))
    _load(model, rounded)
    return folder


def _module_of(name: str, model: transformers.PreTrainedModel) -> torch.nn.Module | None:
    return dict(model.named_modules()).get(name.removesuffix(".weight"))


def _experts_one_by_one(
    tensors: dict[str, torch.Tensor], model: transformers.PreTrainedModel
) -> dict[str, torch.Tensor]:
    """Experts as quantizers leave them: a linear each."""
    apart = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if not module.endswith(".experts"):
            apart[name] = tensor
            continue
        for index, expert in enumerate(_rows_first(tensor, model)):
            linears = {part: expert}
            if part == "gate_up_proj":
                linears = dict(zip(_HALF, expert.chunk(2), strict=True))
            for linear, weight in linears.items():
                apart[f"{module}.{index}.{linear}.weight"] = weight.contiguous()
    return apart


def _rows_first(experts: torch.Tensor, model: transformers.PreTrainedModel) -> torch.Tensor:
    """[experts, N, K], which Llama 4 has as [experts, K, N]."""
    return experts.transpose(1, 2) if model.config.model_type == "llama4_text" else experts


def _load(model: transformers.PreTrainedModel, rounded: dict[str, torch.Tensor]) -> None:
    """Put the rounded weights into `model`."""
    state = model.state_dict()
    for name, weight in rounded.items():
        module, _, rest = name.partition(".experts.")
        if not rest:
            state[name].copy_(weight)
            continue
        index, part, _ = rest.split(".")
        whole = state[f"{module}.experts.{'gate_up' if part in _HALF else 'down'}_proj"]
        linear = _rows_first(whole, model)[int(index)]
        (linear.chunk(2)[_HALF[part]] if part in _HALF else linear).copy_(weight)
