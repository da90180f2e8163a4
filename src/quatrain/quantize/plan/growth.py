"""Explains why a checkpoint on disk is larger than its source."""

from dataclasses import dataclass
from math import prod

from quatrain.quantize.plan.plan import Part, Plan, TensorPlan


@dataclass(frozen=True)
class PartSize:
    """What a part of a checkpoint takes on disk.

    Attributes:
        part: "embedding", "layers" or "output".
        format: How its matrices are stored: "int4", "int8" or "fp".
        weights: How many numbers its matrices hold.
        integers: Bytes of them as integers, one each.
        scales: Bytes of their scales, float32.
        floats: Bytes of what stays in float32: norms, biases, routers.
    """

    part: Part
    format: str
    weights: int
    integers: int
    scales: int
    floats: int

    @property
    def bytes(self) -> int:
        """Of all of it."""
        return self.integers + self.scales + self.floats


def part_sizes(plan: Plan) -> list[PartSize]:
    """The sizes of what `plan` writes, in the order of the file."""
    parts: dict[Part, list[TensorPlan]] = {}
    for tensor in plan.tensors:
        parts.setdefault(tensor.part, []).append(tensor)
    formats = {**plan.quantization_args, "layers": "int4"}
    return [_size(part, formats[part], tensors) for part, tensors in parts.items()]


def _size(part: Part, stored_as: str, tensors: list[TensorPlan]) -> PartSize:
    integers = scales = floats = 0
    for tensor in tensors:
        for spec in tensor.specs:
            if not spec.dtype.is_floating_point:
                integers += spec.nbytes
            elif spec.name.endswith(".scales"):
                scales += spec.nbytes
            else:
                floats += spec.nbytes
    weights = sum(prod(tensor.shape) for tensor in tensors if len(tensor.shape) > 1)
    return PartSize(part, stored_as, weights, integers, scales, floats)


def why_it_grows(parts: list[PartSize], bytes_in: int, weights_bytes: int) -> list[str]:
    """Whole sentences; empty if the checkpoint is not larger than its source."""
    if not parts or weights_bytes <= bytes_in:
        return []
    int4 = sum(part.integers for part in parts if part.format == "int4")
    scales = sum(part.scales for part in parts)
    said = [
        f"The checkpoint stores each int4 value in a byte ({_mb(int4)}, half of it unused) and "
        f"scales in float32 ({_mb(scales)}); programs pack two values into a byte."
    ]
    tables = {part.part: part for part in parts}
    output, embedding = tables.get("output"), tables.get("embedding")
    if output and embedding and output.weights == embedding.weights:
        same = "once if they are equal" if output.format == embedding.format else "each"
        said.append(
            f"The output layer is stored separately from the embedding ({output.format}, "
            f"{_mb(output.bytes)} and {embedding.format}, {_mb(embedding.bytes)}), even if the "
            f"source ties them; programs store them {same}."
        )
    floats = sum(part.floats for part in parts)
    said.append(
        f"Norms, biases and other tensors that are not matrices stay in float32 ({_mb(floats)})."
    )
    return said


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
