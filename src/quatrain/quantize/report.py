"""What is said about a checkpoint that was written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizeReport:
    """What `quantize_model` or `convert_model` did.

    Attributes:
        source: The path that was read.
        output: The folder that was written.
        group_size: Weights of a row that share a scale.
        tensors: How many were written.
        resumed_at: How many of them by an earlier attempt.
        bytes_in: Of the source's files that were read.
        bytes_out: Of all files written.
        weights_bytes: Of model.safetensors alone.
        rounded: How many matrices are not exactly the source's.
        relative_rms_error: How far those are from it: the root of the sum of squared errors over
            that of squared weights.
        relative_rms_error_by_part: The same over all weights of the embedding, the layers and the
            output, for a source in floating point; empty for others.
        exact_groups: How many groups the source held as int4 already (GGUF's Q4_0), which are kept
            exactly.
        negative_scales: How many of those have a negative scale.
        tokenizer: The names of its files, none where the source came without.
        seconds: Wall time by stage.
        peak_rss_bytes: The most memory that the process has held so far.
    """

    source: str
    output: str
    group_size: int
    tensors: int
    resumed_at: int
    bytes_in: int
    bytes_out: int
    weights_bytes: int
    rounded: int
    relative_rms_error: float
    relative_rms_error_by_part: dict[str, float]
    exact_groups: int
    negative_scales: int
    tokenizer: list[str]
    seconds: dict[str, float]
    peak_rss_bytes: int
