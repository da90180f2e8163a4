"""The programs whose int4 linears are read: one file each, listed here."""

from collections.abc import Iterable

from quatrain.checkpoint.quantizers.awq import AWQ
from quatrain.checkpoint.quantizers.compressed_tensors import COMPRESSED_TENSORS
from quatrain.checkpoint.quantizers.gptq import GPTQ
from quatrain.checkpoint.quantizers.quantizer import Quantizer
from quatrain.checkpoint.quantizers.torchao import TORCHAO

QUANTIZERS = {quantizer.name: quantizer for quantizer in (GPTQ, AWQ, COMPRESSED_TENSORS, TORCHAO)}


def quantizer_by_names(names: Iterable[str]) -> Quantizer | None:
    """The quantizer whose tensors are among `names`, where names alone tell that."""
    parts = {name.rpartition(".")[2] for name in names}
    for quantizer in QUANTIZERS.values():
        if quantizer.known_by_names and parts & set(quantizer.parts):
            return quantizer
    return None
