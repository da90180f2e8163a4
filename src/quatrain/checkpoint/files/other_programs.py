"""Names the formats of other programs by their content, whose files hold no model as one trains
it, or in a way that nothing here reads."""

import zipfile
from pathlib import Path

from quatrain.errors import shell_word

# Magic numbers, by the byte at which they are.
_STARTS = {
    (0, b"LITERTLM"): "a LiteRT-LM model",
    (4, b"TFL3"): "a LiteRT (TensorFlow Lite) model",
    (0, b"\x89HDF"): "an HDF5 file (TensorFlow's or Keras's)",
    (0, b"lmgg"): "a GGML file, llama.cpp's format before GGUF",
    (0, b"fmgg"): "a GGML file, llama.cpp's format before GGUF",
    (0, b"tjgg"): "a GGML file, llama.cpp's format before GGUF",
}
# Of formats without a magic number.
_SUFFIXES = {".onnx": "an ONNX model", ".msgpack": "a msgpack file (Flax's)"}
_ZIP = b"PK\x03\x04"
_SAVE_WEIGHTS = (
    "import sys, torch; torch.save(torch.jit.load(sys.argv[1]).state_dict(), sys.argv[2])"
)
_ORIGINAL = "give the model that it was made from, as safetensors, .pth or GGUF"


def other_program(path: Path, start: bytes) -> str | None:
    """What `path`, which begins with `start`, is of another program, and what to give instead; None
    if that is not known."""
    if start.startswith(_ZIP):
        return _in_zip(path)
    for (at, magic), what in _STARTS.items():
        if start[at : at + len(magic)] == magic:
            return f"is {what}, which is not read; {_ORIGINAL}"
    is_safetensors = start[8:] == b"{"
    what = None if is_safetensors else _SUFFIXES.get(path.suffix.lower())
    return f"is {what}, which is not read; {_ORIGINAL}" if what else None


def _in_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # damaged, which its reader says
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        to = path.with_name(f"{path.stem}-weights.pt")
        return (
            "is a TorchScript program, which is not read; save its weights: "
            f'`python -c "{_SAVE_WEIGHTS}" {shell_word(path)} {shell_word(to)}`'
        )
    if "archive_format" in inside:
        return f"is a program of torch.export, which is not read; {_ORIGINAL}"
    if any(name.startswith("TF_LITE_") for name in names):
        return f"is a MediaPipe bundle of LiteRT models, which is not read; {_ORIGINAL}"
    return None
