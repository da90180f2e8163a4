"""The supported formats of quantized linears, one file each, listed here."""

from collections.abc import Iterable

from quatrain.checkpoint.quantizers.auto_round import AUTO_ROUND
from quatrain.checkpoint.quantizers.awq import AWQ
from quatrain.checkpoint.quantizers.bitnet import BITNET
from quatrain.checkpoint.quantizers.compressed_tensors import COMPRESSED_TENSORS
from quatrain.checkpoint.quantizers.gemma_mobile import GEMMA_MOBILE
from quatrain.checkpoint.quantizers.gptq import GPTQ
from quatrain.checkpoint.quantizers.mlx import METAL, MLX
from quatrain.checkpoint.quantizers.modelopt import MODELOPT
from quatrain.checkpoint.quantizers.quantizer import Quantizer
from quatrain.checkpoint.quantizers.torchao import TORCHAO

_ALL = (
    GPTQ, AWQ, COMPRESSED_TENSORS, AUTO_ROUND, MLX, METAL, TORCHAO, GEMMA_MOBILE, BITNET, MODELOPT,
)  # fmt: skip
QUANTIZERS = {
    name: quantizer for quantizer in _ALL for name in (quantizer.name, *quantizer.other_names)
}


def quantizer_by_names(names: Iterable[str]) -> Quantizer | None:
    """The quantizer whose tensors are among `names`, if names identify it."""
    parts = {name.rpartition(".")[2] for name in names}
    for quantizer in _ALL:
        if quantizer.marked_by and quantizer.marked_by in parts:
            return quantizer
    return None
