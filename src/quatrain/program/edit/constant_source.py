"""The source of a constant of a layer template: a tensor of the backbone, in some form.

A template holds the key of each constant's source instead of its bytes. `export.template.constants`
makes the bytes; only this module converts a source to its key and back.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from quatrain.errors import QuatrainError

_LAYER = re.compile(r"^layers\.(\d+)\.")


class Form(StrEnum):
    """How a constant holds its tensor."""

    PLAIN = "plain"  # unchanged
    PACKED = "packed"  # int4 values, two in a byte
    SUMS = "sums"  # the sum of each group of int4 values
    TRANSPOSED = "transposed"  # scales [N, groups] as [groups, N]
    DEQUANTIZED = "dequantized"  # a quantized embedding's table in floating point
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


@dataclass(frozen=True, order=True)
class ConstantSource:
    """The `form` of a tensor whose name in the backbone is `tensor`, such as
    `layers.3.attention.wq.weight`; in a module's own table of sources, its name there. That of
    `layers.3.attention.wq+wk.weight` are the rows of two."""

    form: Form
    tensor: str

    @classmethod
    def from_key(cls, key: str) -> "ConstantSource":
        """The source with that key. Raises `QuatrainError` if the key is not valid."""
        form, colon, tensor = key.partition(":")
        if not colon or not tensor or form not in tuple(Form):
            raise QuatrainError(
                f"a template's constant is called {key!r}, expected the form and the name of a "
                "tensor; delete the folder templates in Quatrain's cache"
            )
        return cls(Form(form), tensor)

    @property
    def key(self) -> str:
        """What a template stores, such as `packed:layers.3.attention.wq.weight`."""
        return f"{self.form}:{self.tensor}"

    @property
    def tensors(self) -> list[str]:
        """The names of the tensors whose rows it has, one after another."""
        path, _, own = self.tensor.rpartition(".")
        parent, _, joined = path.rpartition(".")
        parts = joined.split("+")
        return [f"{parent}.{part}.{own}" for part in parts] if len(parts) > 1 else [self.tensor]

    @property
    def layer(self) -> int | None:
        """The number of the layer that the tensor belongs to, None for one outside the layers."""
        return layer_of(self.tensor)

    def below(self, path: str) -> "ConstantSource":
        """The source whose tensor is that of the submodule at `path`."""
        return replace(self, tensor=f"{path}.{self.tensor}")

    def moved(self, layer: int, to: int) -> "ConstantSource":
        """The same tensor of layer `to`, where this one is of `layer`; else this source."""
        return replace(self, tensor=in_layer(self.tensor, to)) if self.layer == layer else self


def layer_of(tensor: str) -> int | None:
    """The number of the layer that the tensor of that name belongs to, None for no layer's."""
    match = _LAYER.match(tensor)
    return int(match[1]) if match else None


def in_layer(tensor: str, layer: int) -> str:
    """The name of the same tensor in another layer: of `layers.1.F`, `layers.7.F`."""
    return _LAYER.sub(f"layers.{layer}.", tensor, count=1)
