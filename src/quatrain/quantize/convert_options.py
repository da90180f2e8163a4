"""The options of `convert_model`."""

from dataclasses import dataclass

from quatrain.quantize.tensor_formats import (
    EmbeddingFormat,
    ForBackend,
    OutputFormat,
    check_formats,
)


@dataclass(frozen=True)
class ConvertOptions:
    """What `convert_model` should change.

    Attributes:
        group_size: The number of weights of a row that share a scale, only for a floating-point
            source: 32, 64, 128 or 256, or 16 for Vulkan. None means 32, or a quantized source's
            own.
        embedding: "int4" in groups, "int8" per row, or "fp"; "keep" keeps a quantized source's own
            format, and is as in `quantize_model` for other sources.
        output_layer: "int4" in groups or "int8" per channel; "keep" as for `embedding`.
        requantize_asymmetric: Quantize linears again that the layout cannot hold: those with zero
            points, and those in act-order.
        backend: The backends that will run the checkpoint. Only "vulkan" accepts a quantized
            source's groups of 16; for a floating-point source as in `quantize_model`.
    """

    group_size: int | None = None
    embedding: EmbeddingFormat = "keep"
    output_layer: OutputFormat = "keep"
    requantize_asymmetric: bool = False
    backend: ForBackend = "any"

    def __post_init__(self) -> None:
        check_formats(self.embedding, self.output_layer, backend=self.backend)
