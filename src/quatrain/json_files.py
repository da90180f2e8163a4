"""JSON objects in files: read with an error that says what is wrong, written the same each time."""

import codecs
import json
import math
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.stand_ins import refuse_stand_in

_UTF16_STARTS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `InputError` if there is none, or it is another kind of
    value."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        refuse_stand_in(path)
        raise InputError(f"{path}: cannot be read as JSON: {error}{what_it_is(path)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def what_it_is(path: Path) -> str:
    """What the file `path`, which is not JSON in UTF-8, seems to be instead, and a remedy."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    start, end = content[:60], content.rstrip()[-20:]
    if not start.strip():
        return "; it is empty: download it again"
    if start.startswith(_UTF16_STARTS):
        return "; it is in UTF-16: save it in UTF-8"
    if start.startswith((b"//", b"/*", b"#")):
        return "; JSON has no comments: remove them"
    if start.lstrip()[:1] not in b"{[":
        return f"; it begins with {start[:20]!r}: download it again"
    if end[-1:] not in b"}]":
        return f"; it ends with {end!r}, as one that was cut short: download it again"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "; it is in another encoding: save it in UTF-8 (iconv -f ITS-ENCODING -t UTF-8)"
    return "; correct it there, or download it again"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as the JSON file `path`, the same bytes for the same value.

    Raises `InputError` if a string in it has no UTF-8.
    """
    try:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path.name}: its source holds half of a surrogate pair ({error.object[error.start]!r}"
            "), which is no character; write that file again"
        ) from error


def finite(value: Any) -> Any:
    """`value` with None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
