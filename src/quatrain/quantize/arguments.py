"""What can be refused before anything is fetched or opened, and without importing torch."""

from pathlib import Path

from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES
from quatrain.quantize.output_folder import check_output_folder


def check_arguments(
    source: Path | str, output: Path | str, group_size: int | None, params: Path | str | None = None
) -> None:
    """Raise `InputError` for a group size that no kernel takes (None is one to be chosen), and for
    an `output` that no checkpoint made of `source` and `params` may go to."""
    if group_size is not None and group_size not in GROUP_SIZES:
        raise InputError(
            f"group size {group_size} is not supported, expected one of "
            f"{', '.join(map(str, GROUP_SIZES))}"
        )
    # A name with a null character is none; what opens it says so.
    named = [Path(path) for path in (source, params) if path and "\0" not in str(path)]
    check_output_folder(Path(output), named)
