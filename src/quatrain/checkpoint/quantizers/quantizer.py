"""What a quantizer is to us: the tensors that it stores for a linear, and how they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear

Parts = Mapping[str, StoredTensor]  # a linear's stored tensors, by what their names end in
Settings = Mapping[str, Any]  # config.json's quantization_config


@dataclass(frozen=True)
class Quantizer:
    """How one program stores int4 linears.

    `name`: config.json's quant_method. `required` and `optional`: what the names of a linear's
    tensors end in, after the linear's own. `read(parts, settings, name, source)`: the linear
    `name` from its stored parts; reads no data before the linear's own functions are called.
    `check(settings, metadata, source)`: raises `InputError` where the settings, or the metadata of
    the files' headers, say something that cannot be read. `known_by_names`: whether its tensors
    are no other's, so that a file without settings can be told by them.
    """

    name: str
    required: tuple[str, ...]
    read: Callable[[Parts, Settings, str, str], GroupedLinear]
    check: Callable[[Settings, Mapping[str, str], str], None]
    optional: tuple[str, ...] = ()
    known_by_names: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        return self.required + self.optional
