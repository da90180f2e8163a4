"""Opens a checkpoint with Meta's names: the pre-quantized layout, Meta's own releases, or torchao's
tensors."""

from dataclasses import replace
from pathlib import Path

from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.checkpoint import Checkpoint, checked_checkpoint
from quatrain.checkpoint.files.formats import only_file
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.tensor_file import header_metadata, read_tensors
from quatrain.checkpoint.files.unread_files import unread_weights
from quatrain.checkpoint.layout import EMBEDDING, IGNORED, OUTPUT
from quatrain.checkpoint.meta.adaptations import config_params, with_folded_scale
from quatrain.checkpoint.meta.params import read_meta_params, with_meta_defaults, with_vocabulary
from quatrain.checkpoint.meta.pruned_output import with_own_output
from quatrain.checkpoint.naming_conventions import META, require_naming_convention
from quatrain.checkpoint.quantizers import quantizer_by_names
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear, RoundAgain
from quatrain.checkpoint.quantizers.in_layout import in_layout
from quatrain.checkpoint.quantizers.left_in_floating_point import with_all_quantized
from quatrain.checkpoint.quantizers.read import quantized_tensors
from quatrain.checkpoint.quantizers.unpacked import unpacked_linear
from quatrain.checkpoint.wrapped_names import unwrapped
from quatrain.errors import InputError


def open_meta_checkpoint(
    path: Path, params: Path | str | None, round_again: RoundAgain | None
) -> Checkpoint:
    """Open a folder, or a .safetensors or .pth file, and its params.json.

    A folder holds model.safetensors, or one .safetensors, .pth or .pt file.
    """
    file, notes = path, ()
    if path.is_dir():
        file = only_file(path, (".safetensors", ".pth", ".pt"), "model.safetensors")
        notes = unread_weights(path, [file])
    stored = unwrapped(read_tensors(file), str(file))
    require_naming_convention(META, stored, file)
    params_path = Path(params) if params else file.with_name("params.json")
    if not params_path.is_file():
        raise InputError(
            f"{params_path}: no such file; {file} needs its params.json beside it or in --params"
        )
    tensors = stored.without([name for name in stored if IGNORED.fullmatch(name)])
    folder = str(path if path.is_dir() else file.parent)  # what `quantize` and `convert` take
    if quantizer_by_names(tensors):
        made = quantized_tensors(tensors, header_metadata(file), None, folder, round_again)
        tensors = made[0]
    elif not any(name.endswith(".scales") for name in tensors):
        raise InputError(
            f"{file}: is a floating-point model (no tensor of it has scales); run `quatrain "
            f"quantize {folder} -o DIR` first"
        )
    elif round_again is not None and round_again.asymmetric:
        tensors = _symmetric(tensors, str(file), round_again)
    values = with_meta_defaults(with_vocabulary(read_meta_params(params_path), tensors))
    tensors, values = with_folded_scale(tensors, values, str(file))
    config = config_from_params(config_params(values), str(params_path))
    tensors = with_all_quantized(tensors, config, folder, round_again, {})
    opened = checked_checkpoint(tensors, values, config, file, file.parent)
    own = with_own_output(opened.tensors, opened.config, str(file))
    return replace(opened, tensors=own, notes=(*opened.notes, *notes))


def _symmetric(tensors: LazyTensors, source: str, round_again: RoundAgain) -> LazyTensors:
    """`tensors` in the layout, the matrices with zero points rounded where those are not 0."""
    linears = {
        name.removesuffix(".zeros"): linear
        for name in tensors
        if name.endswith(".zeros") and (linear := _with_zeros(tensors, name.removesuffix(".zeros")))
    }
    rounded = in_layout(linears, source, round_again).stored
    kept = {name: stored for name, stored in tensors.stored.items() if name[:-6] not in linears}
    return LazyTensors(kept | rounded)


def _with_zeros(tensors: LazyTensors, name: str) -> GroupedLinear | None:
    """The matrix `name` [N, K] and its zero points; None if their shapes are another's, which is
    refused with the rest of the structure."""
    weight, scales = (tensors.stored.get(f"{name}.{part}") for part in ("weight", "scales"))
    zeros = tensors.stored[f"{name}.zeros"]
    if not weight or not scales or len(weight.shape) != 2 or scales.shape != zeros.shape:
        return None
    rows, columns = weight.shape
    groups = scales.shape[1] if len(scales.shape) == 2 else 1
    if scales.shape[:1] != (rows,) or not groups or columns % groups:
        return None
    return unpacked_linear(weight, scales, zeros, groups, is_table=name in (EMBEDDING, OUTPUT))
