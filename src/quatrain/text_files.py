"""Text files of the user: for calibration, for measurements, or written by a phone."""

import codecs
from pathlib import Path

from quatrain.errors import InputError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what PowerShell writes with `>`


def read_text(path: Path | str, option: str = "", may_be_cut: bool = False) -> str:
    r"""The text of a UTF-8 file, or of a UTF-16 file that begins with a byte order mark, which is
    no part of the text; lines end in \n. `option`: what the user gave it with, for the message.
    `may_be_cut`: a part of a character at its end becomes U+FFFD.

    Raises:
        InputError: If it cannot be read as such.
    """
    path, named = Path(path), f"{option} {path}".strip()
    content = b""
    try:
        content = path.read_bytes()  # once: a pipe gives it no second time
        wide, cut = content[:2] in _UTF16, _cut_bytes(content) if may_be_cut else 0
        text = content[: len(content) - cut].decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        hint = "; the standard input is /dev/stdin" if str(path) == "-" else ""
        raise InputError(f"{named}: cannot be read as text: {error.strerror}{hint}") from error
    except UnicodeError as error:
        raise InputError(f"{named}: {_why_no_text(content, error)}") from error
    text = text + "\ufffd" * bool(cut)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\0") * 3 > len(text):
        raise InputError(
            f"{named}: cannot be read as text: much of it is NUL (U+0000), as in UTF-16 without a "
            "byte order mark; save a text in UTF-8 (iconv -f UTF-16LE -t UTF-8)"
        )
    return text


def is_utf8(text: str) -> bool:
    """Whether `text`, such as the name of a file, has no bytes that are not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def require_utf8_name(path: Path, library: str) -> None:
    """Raise `InputError` if the name of `path` is not UTF-8, which that `library` needs."""
    if not is_utf8(str(path)):
        raise InputError(f"{str(path)!r}: its name is not UTF-8, which {library} needs; rename it")


def _why_no_text(content: bytes, error: UnicodeError) -> str:
    beginning = content[:1024]
    if b"\0" in beginning and beginning[:2] not in _UTF16:
        return "is a binary file; give one of text in UTF-8"
    cut = _cut_bytes(content)
    whole = (
        f"if it was cut within a character, remove its last {cut} bytes, otherwise " if cut else ""
    )
    return (
        f"cannot be read as text: {error}; {whole}save a text in UTF-8 "
        "(iconv -f ITS-ENCODING -t UTF-8)"
    )


def _cut_bytes(content: bytes) -> int:
    """How many bytes at the end of a UTF-8 text are a part of a character."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(content) - error.start if error.reason == "unexpected end of data" else 0
    return 0
