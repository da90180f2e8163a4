"""A release.toml of one release."""

from pathlib import Path
from typing import Any

from quatrain.release.spec import ReleaseSpec, merged_specs


def merged_spec(file: Path | None, given: dict[str, Any]) -> ReleaseSpec:
    """What `file` says, and in its place what is `given`."""
    (found,) = merged_specs(file, given)
    return found
