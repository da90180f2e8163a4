"""A file of tensors in either of the two formats."""

from pathlib import Path

from quatrain.checkpoint.files.formats import Form, form_of_file, is_a_program
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.pth import read_pth
from quatrain.checkpoint.files.safetensors import read_metadata, read_safetensors
from quatrain.errors import InputError, shell_word


def read_tensors(path: Path) -> LazyTensors:
    """The tensors of a `.safetensors` or `.pth` file, memory-mapped."""
    form = form_of_file(path)
    if form is Form.GGUF:
        raise InputError(
            f"{path}: is a GGUF model, expected a checkpoint; "
            f"run `quatrain quantize {shell_word(path)} -o DIR` first"
        )
    if form is Form.PROGRAM:
        raise is_a_program(path)
    tensors = read_pth(path) if form is Form.PTH else read_safetensors(path)
    for name, stored in tensors.stored.items():
        if name.endswith(".weight") and stored.shape == (0,):
            raise InputError(
                f"{path}: {name} is empty (its shape is [0]): training on several devices "
                "(DeepSpeed's ZeRO-3, FSDP) leaves empty tensors if the weights are stored in "
                "shards elsewhere; save the whole model, as zero_to_fp32.py beside those shards "
                "does"
            )
    return tensors


def header_metadata(path: Path) -> dict[str, str]:
    """The free-form metadata in a `.safetensors` file's header; a `.pth` file has none."""
    return read_metadata(path) if form_of_file(path) is Form.SAFETENSORS else {}
