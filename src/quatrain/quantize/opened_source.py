"""A source that is opened, with what is to become of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.quantize.plan.plan import Plan, Source
from quatrain.quantize.plan.plan_checkpoint import plan_checkpoint
from quatrain.quantize.plan.plan_model import plan_model
from quatrain.quantize.quantized_tensor import RoundingError
from quatrain.quantize.requantize import Requantization
from quatrain.quantize.tensor_formats import (
    EmbeddingFormat,
    ForBackend,
    OutputFormat,
    Rounding,
    group_sizes_for,
)
from quatrain.tokenizer.files import files_of, require_tokenizer


@dataclass(frozen=True)
class OpenedSource:
    """`files`: the files of `source`, at `path`. `open_again` reopens it. `errors`: the rounding
    errors by tensor, filled in as tensors are quantized. `tokenizer`: a tokenizer.json to use
    instead of the source's own."""

    path: Path
    files: list[Path]
    source: Source
    plan: Plan
    open_again: Callable[[], Source]
    errors: dict[str, RoundingError] = field(default_factory=dict)
    tokenizer: Path | None = None

    def with_tokenizer(self, tokenizer: Path | None) -> "OpenedSource":
        """The same, with `tokenizer` in place of the source's own. Raises `InputError` if it is
        none."""
        if tokenizer is None:
            return self
        require_tokenizer(tokenizer)
        new = [file for file in files_of(tokenizer) if file not in self.files]
        return replace(self, files=[*self.files, *new], tokenizer=tokenizer)

    def rounded(self) -> list[RoundingError]:
        """Of the matrices that are not exactly the source's."""
        return [error for error in self.errors.values() if error.squared_error]


def open_model(
    path: Path,
    group_size: int,
    embedding: EmbeddingFormat,
    output_layer: OutputFormat,
    base: Path | None,
    backend: ForBackend = "any",
    method: Rounding = "rtn",
) -> OpenedSource:
    """A model in floating point, planned for `method`. Raises `InputError` as `open_float_model`
    and `plan_model`."""
    model = open_float_model(path, base)
    plan = plan_model(model, group_size, embedding, output_layer, method, backend)
    files = source_files(path, None, base)
    return OpenedSource(path, files, model, plan, lambda: open_float_model(path, base))


def open_quantized(
    path: Path,
    params: Path | None,
    group_size: int | None,
    embedding: EmbeddingFormat,
    output_layer: OutputFormat,
    round_again: bool,
    backend: ForBackend,
) -> OpenedSource:
    """A checkpoint; `round_again`: linears that the layout cannot hold are requantized, as are
    those with a group size that `backend` does not support. Raises `InputError` as
    `open_checkpoint` and `plan_checkpoint`."""
    requantization = Requantization(round_again, group_sizes_for(backend))

    def open_again() -> Checkpoint:
        return open_checkpoint(path, params, requantization)

    checkpoint = open_again()
    plan = plan_checkpoint(checkpoint, group_size, embedding, output_layer)
    files = source_files(path, params)
    return OpenedSource(path, files, checkpoint, plan, open_again, requantization.errors)
