"""A source that is opened, with what is to become of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from quatrain.quantize.plan.plan import Plan, Source
from quatrain.quantize.quantized_tensor import RoundingError
from quatrain.tokenizer.files import files_of, require_tokenizer


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

    def with_tokenizer(self, tokenizer: Path | None) -> "OpenedSource":
        """The same, with `tokenizer` in place of the source's own. Raises `InputError` where it is
        none."""
        if tokenizer is None:
            return self
        require_tokenizer(tokenizer)
        new = [file for file in files_of(tokenizer) if file not in self.files]
        return replace(self, files=[*self.files, *new], tokenizer=tokenizer)

    def rounded(self) -> list[RoundingError]:
        """Of the matrices that are not exactly the source's."""
        return [error for error in self.errors.values() if error.squared_error]
