"""Opens a quantized checkpoint of whichever format it is in, told from its content."""

from pathlib import Path

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.hugging_face.quantized import open_hugging_face_checkpoint
from quatrain.checkpoint.meta.quantized import open_meta_checkpoint
from quatrain.checkpoint.quantizers.grouped_linear import RoundAgain


def open_checkpoint(
    path: Path | str, params: Path | str | None = None, round_again: RoundAgain | None = None
) -> Checkpoint:
    """Open a quantized checkpoint as the pre-quantized layout.

    `path` is a folder with params.json and one .safetensors or .pth file in the layout (Meta's
    official releases are); such a file, its params.json beside it or in `params`; a Hugging Face
    folder quantized by GPTQ, AWQ, compressed-tensors or torchao; or `hf://owner/name`, such a
    folder on the hub.

    Reads headers only; names, shapes and dtypes are checked against the parameters here, values
    by `Checkpoint.check_values`. `round_again` takes the linears that the layout cannot hold,
    asymmetric or in act-order, which are refused without it. Raises `InputError` naming what
    does not fit.
    """
    path = local_path(path)
    if params is None and path.is_dir() and (path / "config.json").is_file():
        return open_hugging_face_checkpoint(path, round_again)
    return open_meta_checkpoint(path, params, round_again)
