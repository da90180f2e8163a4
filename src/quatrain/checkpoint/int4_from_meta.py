"""Opens a checkpoint in Meta's names: the pre-quantized layout, Meta's own releases in it, or
torchao's tensors."""

from pathlib import Path

from quatrain.backbone.config import load_params
from quatrain.checkpoint.checkpoint import Checkpoint, checked_checkpoint
from quatrain.checkpoint.formats import format_of, only_file, read_tensors
from quatrain.checkpoint.grouped import RoundAgain
from quatrain.checkpoint.int4_from_hugging_face import quantized_tensors
from quatrain.checkpoint.layout import IGNORED
from quatrain.checkpoint.meta_adaptations import with_folded_scale
from quatrain.checkpoint.safetensors_file import read_metadata
from quatrain.checkpoint.torchao_tensors import PARTS
from quatrain.errors import InputError


def open_meta_checkpoint(
    path: Path, params: Path | None, round_again: RoundAgain | None
) -> Checkpoint:
    """Open a folder, or a .safetensors or .pth file, and its params.json.

    A folder holds model.safetensors, or one .safetensors, .pth or .pt file.
    """
    file = path
    if path.is_dir():
        file = only_file(path, (".safetensors", ".pth", ".pt"), "model.safetensors")
    stored = read_tensors(file)
    params_path = Path(params) if params else file.with_name("params.json")
    if not params_path.is_file():
        raise InputError(
            f"{params_path}: no such file; {file} needs its params.json beside it or in --params"
        )
    tensors = stored.renamed({name: name for name in stored if not IGNORED.fullmatch(name)})
    if any(name.endswith(PARTS) for name in tensors):
        metadata = read_metadata(file) if format_of(file) == "safetensors" else {}
        tensors = quantized_tensors(tensors, metadata, None, str(file), round_again)
    tensors, values = with_folded_scale(tensors, load_params(params_path), str(file))
    return checked_checkpoint(tensors, values, file, file.parent, params_path)
