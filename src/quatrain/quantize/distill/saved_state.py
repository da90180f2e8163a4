"""The saved state of an interrupted training; a damaged one counts as missing."""

import io
import json
import os
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch

from quatrain.quantize.output.resumable import sha256_of

_DIGEST_BYTES = 32
_SEAL = "sha256.json"


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state`, tensors and numbers, to `path`: completely or not at all, and flushed to the
    disk."""
    content = io.BytesIO()  # on a full disk, torch itself reports a damaged file
    torch.save(state, content)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(sha256(content.getbuffer()).digest())
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """What `save` wrote; None if the file is missing or damaged."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        digest = file.read(_DIGEST_BYTES)
        if file_digest(file, "sha256").digest() != digest:
            return None
        file.seek(_DIGEST_BYTES)
        return torch.load(file, weights_only=True)


def seal(folder: Path) -> None:
    """Note in `folder` what its files are."""
    (folder / _SEAL).write_text(json.dumps(_digests(folder)))


def is_sealed(folder: Path) -> bool:
    """Whether the files of `folder` are those that `seal` noted."""
    try:
        return json.loads((folder / _SEAL).read_text()) == _digests(folder)
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    files = [file for file in folder.iterdir() if file.name != _SEAL]
    return {file.name: sha256_of(file).hexdigest() for file in files}
