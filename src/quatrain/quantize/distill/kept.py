"""What is kept of a training that was stopped, on disk."""

import io
import os
from pathlib import Path
from typing import Any

import torch


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state`, tensors and numbers, to `path`: whole or not at all, and on the disk."""
    content = io.BytesIO()  # torch itself says of a full disk that the file is damaged
    torch.save(state, content)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """What `save` wrote; None where there is nothing."""
    return torch.load(path, weights_only=True) if path.exists() else None
