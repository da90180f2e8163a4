"""torchao's tensors of integers and of FP8 in files: plain tensors with their own names.

A safetensors file stores them separately (`torchao.prototype.safetensors`); a pickle stores one
object of the class, which is split here into the same names.
`quatrain.checkpoint.quantizers.torchao` describes their meaning.
`quatrain.checkpoint.hugging_face.tensors.float8` reads those of FP8.
"""

import torch

TYPE = "IntxUnpackedToInt8Tensor"
INT8, FLOAT8 = "Int8Tensor", "Float8Tensor"
EXPECTED = (
    f"expected {TYPE}, {INT8} or {FLOAT8}; quantize with Int8DynamicActivationIntxWeightConfig or "
    "IntxWeightOnlyConfig, weight_dtype int4"
)
BITS = "_weight_bits"  # of a value, of a tensor that was taken apart here
DTYPE_BITS = {f"int{bits}": bits for bits in range(1, 9)}  # torchao's target_dtype
PARTS = ("_weight_qdata", "_weight_scale", "_weight_zero_point")
_OF_INPUTS = ("_weight_act_pre_scale", "_weight_act_quant_scale")  # which nothing reads


def apart(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that `tensor`, called `name`, consists of, by name: itself unless it is
    torchao's."""
    kind = type(tensor).__name__
    if kind not in (TYPE, INT8, FLOAT8):
        return {name: tensor}
    module, found = name.rpartition(".")[0], (*PARTS, *_OF_INPUTS)
    values = (getattr(tensor, part.removeprefix("_weight_"), None) for part in found)
    parts = {
        f"{module}.{part}": value
        for part, value in zip(found, values, strict=True)
        if isinstance(value, torch.Tensor)
    }
    stated = str(getattr(tensor, "target_dtype", "")).removeprefix("torch.")
    bits = 8 if kind == INT8 else DTYPE_BITS.get(stated)
    return parts | ({f"{module}.{BITS}": torch.tensor(bits)} if bits else {})
