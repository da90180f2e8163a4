"""What of a tokenizer.json ExecuTorch's C++ tokenizer does not read.

Tried with pytorch_tokenizers 1.5: a file that has anything else does not load there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quatrain.json_files import read_object

_READ = {
    "model": {"BPE"},
    "normalizer": {"NFC", "Prepend", "Replace", "Sequence"},
    "pre_tokenizer": {"ByteLevel", "Digits", "Split", "Sequence"},
    "decoder": {"ByteFallback", "ByteLevel", "Fuse", "Replace", "Strip", "Sequence"},
}


def unread_on_a_phone(tokenizer: Path) -> str | None:
    """The first part of the tokenizer.json `tokenizer` that is not read there, such as
    "pre_tokenizer Metaspace"; None where all is. Raises `InputError` where it is damaged."""
    content = read_object(tokenizer)
    for part, read in _READ.items():
        for kind in _kinds(content.get(part)):
            if kind not in read:
                return f"{part} {kind}"
    return None


def _kinds(part: Any) -> Iterator[str]:
    if not isinstance(part, dict):
        return
    yield str(part.get("type", "BPE"))
    for inner in ("normalizers", "pretokenizers", "decoders"):
        for one in part.get(inner) or ():
            yield from _kinds(one)
