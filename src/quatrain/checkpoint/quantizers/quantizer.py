"""The description of a format of quantized linears: its tensors, and how to read them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.parts import Parts

# config.json's quantization_config, and under HEADERS the metadata of the files' headers.
Settings = Mapping[str, Any]
HEADERS = "headers"
Prepare = Callable[[LazyTensors, Settings, str], LazyTensors]


@dataclass(frozen=True)
class Quantizer:
    """How one program stores int4 linears.

    `name`: config.json's quant_method. `required` and `optional`: what the names of a linear's
    tensors end in, after the linear's own. `read(parts, settings)`: the linear from its stored
    parts; reads no data before the linear's own functions are called. `check(settings, source)`:
    raises `InputError` if the settings say something that cannot be read. `prepare(stored,
    settings, source)`: a model's tensors with those in floating point that the model quantizes as
    it runs as the linears' parts.
    `other(settings)`: the quantizer that reads them instead, if the program has another format too.
    `other_names`: more values of quant_method that mean it. `marked_by`:
    a part that no other stores, so that a file without settings can be told by it. `asymmetric`:
    whether it knows no other groups. `embedding_by_columns`: whether it stores an embedding [N, K]
    as a linear [K, N], whose groups are of tokens.
    """

    name: str
    required: tuple[str, ...]
    read: Callable[[Parts, Settings], GroupedLinear]
    check: Callable[[Settings, str], None] = lambda settings, source: None
    prepare: Prepare = lambda stored, settings, source: stored
    other: Callable[[Settings], "Quantizer | None"] = lambda settings: None
    optional: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    marked_by: str = ""
    asymmetric: bool = False
    embedding_by_columns: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Every suffix that a tensor of a linear may have."""
        return self.required + self.optional
