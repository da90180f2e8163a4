"""The command line, in the process of the test."""

from collections.abc import Iterable
from typing import Any

from typer.testing import CliRunner, Result

from quatrain.cli import build_app


def invoked(words: Iterable[object], **options: Any) -> Result:
    """What `quatrain` does with `words`."""
    return CliRunner().invoke(build_app(), [str(word) for word in words], **options)
