"""What is said about a checkpoint that was written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizeReport:
    """What `quantize_model` or `convert_model` did.

    `tensors`: how many were written, `resumed_at` of them by an earlier attempt. `bytes_in`: of the
    source's files that were read; `bytes_out`: of all files written, `weights_bytes` of
    model.safetensors alone. `rounded`: how many matrices are not exactly the source's, and
    `relative_rms_error` how far those are from it: the root of the sum of squared errors over that
    of squared weights. `relative_rms_error_by_part`: the same over all weights of the embedding,
    the layers and the output, for a source in floating point; empty for others. `exact_groups`: how
    many groups the source held as int4 already (GGUF's Q4_0), which are kept exactly;
    `negative_scales`: how many of those have a negative scale. `tokenizer`: the names of its files,
    none where the source came without. `seconds`: by stage.
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
