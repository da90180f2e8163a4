"""A source that is opened, with what is to become of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from quatrain.quantize.plan.plan import Plan, Source
from quatrain.quantize.quantized_tensor import RoundingError


@dataclass(frozen=True)
class OpenedSource:
    """`files`: those that `source` is read from, at `path`. `open_again` gives it anew. `errors`:
    what rounding changed, by tensor, noted as it happens. `tokenizer`: a tokenizer.json in place of
    the source's own."""

    path: Path
    files: list[Path]
    source: Source
    plan: Plan
    open_again: Callable[[], Source]
    errors: dict[str, RoundingError] = field(default_factory=dict)
    tokenizer: Path | None = None

    def rounded(self) -> list[RoundingError]:
        """Of the matrices that are not exactly the source's."""
        return [error for error in self.errors.values() if error.squared_error]
