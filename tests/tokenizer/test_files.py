"""A tokenizer is found where it lies, and copied beside a program."""

from pathlib import Path

import pytest

from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.tokenizer.files import require_tokenizer


def test_where_a_tokenizer_is_looked_for(tmp_path: Path) -> None:
    program, folder = tmp_path / "m.pte", tmp_path / "checkpoint"
    folder.mkdir()
    missing = r"m\.tokenizer\.json or tokenizer\.json\), nor in .*; copy .* tokenizer.json there$"
    with pytest.raises(InputError, match=missing):
        find_tokenizer(program, folder)
    for file in (folder / "tokenizer.json", tmp_path / "tokenizer.json"):
        file.touch()
        assert find_tokenizer(program, folder) == file
    (tmp_path / "m.tokenizer.json").touch()
    assert find_tokenizer(program, folder).name == "m.tokenizer.json"


def test_a_folder_in_place_of_a_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer.json"
    folder.mkdir()
    for read in (require_tokenizer, Tokenizer.load):
        with pytest.raises(
            InputError, match=r"json: is a folder; give the model's tokenizer\.json"
        ):
            read(folder)
    (folder / "tokenizer.model").touch()
    for read in (require_tokenizer, Tokenizer.load):
        with pytest.raises(InputError, match=r"json: is a folder; give .*json/tokenizer\.model$"):
            read(folder)
