"""An export that fails leaves no half-written file, and what stood there stands."""

import errno
import json
from pathlib import Path

import pytest
from tests.support.formats.tokenizer_files import EMPTY_TOKENIZER
from tests.support.models.tiny_checkpoint import write_checkpoint

from quatrain import atomic_files
from quatrain.errors import InputError
from quatrain.export import export_checkpoint, exporter


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a checkpoint and an older program in it."""
    write_checkpoint(tmp_path / "c")
    (tmp_path / "m.pte").write_bytes(b"older")
    return tmp_path


def unchanged(place: Path) -> bool:
    names = sorted(path.name for path in place.iterdir())
    return names == ["c", "m.pte"] and (place / "m.pte").read_bytes() == b"older"


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_interrupted(place, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "write_vulkan_program_from_template", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(place / "c", place / "m.pte")
    assert unchanged(place)


def test_disk_full(place, monkeypatch):
    def full(*arguments):
        arguments[4].write_bytes(b"half")
        no_space()

    monkeypatch.setattr(exporter, "write_vulkan_program_from_template", full)
    with pytest.raises(InputError, match=r"m\.pte: cannot be written: No space left on device"):
        export_checkpoint(place / "c", place / "m.pte")
    assert unchanged(place)


def test_disk_full_at_the_tokenizer(place, monkeypatch):
    (place / "c" / "tokenizer.json").write_text(EMPTY_TOKENIZER)

    monkeypatch.setattr(atomic_files.shutil, "copyfile", no_space)
    with pytest.raises(InputError, match=r"m\.tokenizer\.json: cannot be written: No space left"):
        export_checkpoint(place / "c", place / "m.pte")
    assert unchanged(place)


def test_disk_full_at_the_program_leaves_no_tokenizer(place, monkeypatch):
    (place / "c" / "tokenizer.json").write_text(EMPTY_TOKENIZER)

    monkeypatch.setattr(exporter, "write_vulkan_program_from_template", no_space)
    with pytest.raises(InputError, match=r"m\.pte: cannot be written: No space left"):
        export_checkpoint(place / "c", place / "m.pte")
    assert unchanged(place)


def test_the_tokenizer_beside_a_program_has_its_template_and_ends(tmp_path):
    """As in a Hugging Face folder, where they lie in other files."""
    write_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "tokenizer.json").write_text(EMPTY_TOKENIZER)
    (tmp_path / "c" / "chat_template.jinja").write_text("{{ messages }}")
    params = json.loads((tmp_path / "c" / "params.json").read_text())
    (tmp_path / "c" / "params.json").write_text(json.dumps(params | {"eos_idx": [2, 0]}))
    report = export_checkpoint(tmp_path / "c", tmp_path / "m.pte")
    assert [file.name for file in report.tokenizer_files] == [
        "m.tokenizer.json", "m.tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads((tmp_path / "m.tokenizer_config.json").read_text())
    assert config == {"chat_template": "{{ messages }}", "eos_token_id": [2, 0]}


def test_an_earlier_tokenizer_is_spoken_of(place):
    (place / "m.tokenizer.json").write_text(EMPTY_TOKENIZER)
    report = export_checkpoint(place / "c", place / "m.pte")
    assert any(
        "run with m.tokenizer.json, which was already beside" in note for note in report.notes
    )


def test_no_such_folder(place):
    with pytest.raises(InputError, match=r"nowhere/m\.pte: cannot be written: No such file"):
        export_checkpoint(place / "c", place / "nowhere" / "m.pte")


def test_the_output_is_a_folder(place):
    (place / "folder").mkdir()
    with (
        pytest.raises(InputError, match="cannot be written: Is a directory"),
        atomic_files.whole_file(place / "folder") as temporary,
    ):
        temporary.write_bytes(b"x")
    assert sorted(path.name for path in place.iterdir()) == ["c", "folder", "m.pte"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_files.whole_folder(tmp_path / "f") as temporary:
        (temporary / "a").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with atomic_files.whole_folder(tmp_path / "f") as temporary:
        (temporary / "a").write_text("whole")
    assert (tmp_path / "f" / "a").read_text() == "whole"


def test_files_in_an_existing_folder_are_replaced_one_by_one(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "other").write_text("kept")
    with atomic_files.whole_folder(tmp_path) as temporary:
        (temporary / "a").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "other": "kept",
    }


def test_a_cache_that_cannot_be_made(place, monkeypatch):
    monkeypatch.setenv("QUATRAIN_CACHE", str(place / "c" / "params.json"))
    with pytest.raises(
        InputError, match=r"the cache folder cannot be created: .*set QUATRAIN_CACHE"
    ):
        export_checkpoint(place / "c", place / "m.pte")
    assert unchanged(place)
