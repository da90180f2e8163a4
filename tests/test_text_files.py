"""Texts in files: the encodings that are read, and what is said of others."""

import os
from pathlib import Path
from threading import Thread

import pytest

from quatrain.errors import InputError
from quatrain.text_files import read_text

TEXT = "Caf\u00e9, \u4f60\u597d.\nA second line.\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_in_the_text(tmp_path: Path, encoding: str):
    file = tmp_path / "text"
    file.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    assert read_text(file) == TEXT


def test_a_pipe_is_read_whole(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = Thread(target=(tmp_path / "pipe").write_text, args=(TEXT,))
    writer.start()
    assert read_text(tmp_path / "pipe") == TEXT
    writer.join()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Caf\u00e9".encode("latin-1"), r"--text .*position 3.*save a text in UTF-8 \(iconv"),
        ("A text.".encode("utf-16-le"), r"--text .*much of it is NUL.*iconv -f UTF-16LE"),
        (b"ET12\x00\x00\xf0\x9f", r"--text .*is a binary file; give one of text"),
        (
            "A caf\u00e9".encode()[:-1],
            r"--text .*cut within a character, remove its last 1 bytes, otherwise",
        ),
        (b"\xff\xfea", r"--text .*truncated data.*iconv"),
    ],
)
def test_another_encoding_is_answered_with_what_helps(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_text(file, "--text")


def test_a_part_of_a_character_at_the_end_may_stand_for_it(tmp_path: Path) -> None:
    """As in what a phone wrote until it was stopped; one elsewhere is another encoding."""
    file = tmp_path / "text"
    file.write_bytes("A \u4f60".encode()[:-1])
    assert read_text(file, may_be_cut=True) == "A \ufffd"
    file.write_bytes("A \u4f60".encode()[:-1] + b" B")
    with pytest.raises(InputError, match="iconv"):
        read_text(file, may_be_cut=True)
