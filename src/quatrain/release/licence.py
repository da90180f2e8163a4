"""What a model's files say about its licence; nothing is concluded from it."""

import re
from pathlib import Path
from typing import Any

from quatrain.checkpoint.files.formats import Form
from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.checkpoint.open import detect
from quatrain.quantize.manifest import digested

_FILES = re.compile(r"(licen[cs]e|copying|notice|use_policy)", re.I)
_HEADER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.S | re.M)  # a model card's YAML
_FIELD = re.compile(r"^(license(?:_name|_link)?):\s*['\"]?(.+?)['\"]?\s*$", re.M)


def licence_of(source: Path) -> dict[str, Any]:
    """Of the model at `source`: "fields", what its card or its GGUF file states by name, and
    "files", those called as licences are, with their SHA-256. Both may be empty."""
    folder = source if source.is_dir() else source.parent
    fields = _gguf_fields(source) if detect(source) is Form.GGUF else _card_fields(folder)
    files = [
        digested(file)
        for file in sorted(folder.iterdir())
        if source.is_dir() and file.is_file() and _FILES.match(file.name)
    ]
    return {"fields": fields, "files": files}


def _gguf_fields(file: Path) -> dict[str, str]:
    metadata = read_gguf(file).metadata
    return {key: str(value) for key, value in metadata.items() if "license" in key}


def _card_fields(folder: Path) -> dict[str, str]:
    card = folder / "README.md"
    if not card.is_file():
        return {}
    header = _HEADER.search(card.read_text(encoding="utf-8", errors="replace"))
    return dict(_FIELD.findall(header[1])) if header else {}
