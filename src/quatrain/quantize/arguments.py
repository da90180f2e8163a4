"""What can be refused before anything is fetched or opened, and without importing torch."""

from collections.abc import Iterable
from pathlib import Path

from quatrain.atomic_files import is_device_or_pipe
from quatrain.checkpoint.files.hub import is_on_hub, readable
from quatrain.checkpoint.open import detect
from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES
from quatrain.json_files import read_object
from quatrain.quantize.output.output_folder import check_output_folder
from quatrain.quantize.tensor_formats import ForBackend, Rounding, group_sizes_for
from quatrain.text_files import read_text
from quatrain.tokenizer.files import require_tokenizer


def check_arguments(
    source: Path | str | None,
    output: Path | str,
    group_size: int | None,
    params: Path | str | None = None,
    backend: ForBackend = "any",
    tokenizer: Path | str | None = None,
) -> None:
    """Raise `InputError` if the kernels of `backend` do not support `group_size`, `source` is not
    in a supported format, `params` is not a JSON object, `tokenizer` cannot be opened, or the
    checkpoint may not be written to `output`.

    `source` is None if it is still to be fetched, `group_size` if it is to be chosen.
    """
    if group_size is not None:
        _check_group_size(group_size, backend)
    if source is not None:
        detect(source)
    if params is not None:
        read_object(Path(params))
    if tokenizer is not None and not is_on_hub(tokenizer):
        require_tokenizer(tokenizer)
    named = [readable(Path(path)) for path in (source, params) if path is not None]
    check_output_folder(Path(output), named)


def check_calibration(method: Rounding | None, files: Iterable[Path | str] | None) -> None:
    """Raise `InputError` if `method` does not use a calibration text but options for one are given,
    or if one of its `files` is not text; `files` is None without such options."""
    if files is None:
        return
    if method == "rtn":
        raise InputError(
            "--method rtn does not use a calibration text; leave out --calibration, "
            "--self-generated and --for, or choose --method gptq"
        )
    for file in files:
        if not is_device_or_pipe(Path(file)):  # which gives its text once
            read_text(file, "--calibration")


def _check_group_size(group_size: int, backend: ForBackend) -> None:
    sizes = group_sizes_for(backend)
    if group_size in sizes:
        return
    expected = f"expected one of {', '.join(map(str, sizes))}"
    if group_size in GROUP_SIZES:
        expected += f", or --backend vulkan: only its kernels support {group_size}"
    raise InputError(f"group size {group_size!r} is not supported, {expected}")


def refuse_params(model: Path, params: Path | str | None) -> None:
    """Refuse, with `InputError`, parameters beside a `model` in floating point, which has its
    own."""
    if params is not None:
        raise InputError(
            f"--params {params}: {model} is in floating point, and its parameters are read from "
            "its own folder; put the file there as params.json, or leave out the option"
        )
