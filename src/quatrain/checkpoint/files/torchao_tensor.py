"""torchao's int4 tensor in files: three plain tensors with their own names.

A safetensors file stores them separately (`torchao.prototype.safetensors`); a pickle stores one
object of the class, which is split here into the same names.
`quatrain.checkpoint.quantizers.torchao` describes their meaning.
"""

import torch

TYPE = "IntxUnpackedToInt8Tensor"
EXPECTED = (
    f"expected {TYPE}; quantize with Int8DynamicActivationIntxWeightConfig or "
    "IntxWeightOnlyConfig, weight_dtype int4"
)
BITS = "_weight_bits"  # of a value, of a tensor that was taken apart here
DTYPE_BITS = {f"int{bits}": bits for bits in range(1, 9)}  # torchao's target_dtype
PARTS = ("_weight_qdata", "_weight_scale", "_weight_zero_point")


def apart(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that `tensor`, called `name`, consists of, by name: itself unless it is
    torchao's."""
    if type(tensor).__name__ != TYPE:
        return {name: tensor}
    module = name.rpartition(".")[0]
    values = (getattr(tensor, part.removeprefix("_weight_"), None) for part in PARTS)
    parts = {
        f"{module}.{part}": value
        for part, value in zip(PARTS, values, strict=True)
        if isinstance(value, torch.Tensor)
    }
    bits = DTYPE_BITS.get(str(getattr(tensor, "target_dtype", "")).removeprefix("torch."))
    return parts | ({f"{module}.{BITS}": torch.tensor(bits)} if bits else {})
