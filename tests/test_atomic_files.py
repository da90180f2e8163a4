"""What is kept between runs, and where."""

import errno
import os
from pathlib import Path

import pytest

from quatrain.atomic_files import cache_folder, take_room, whole_file
from quatrain.errors import InputError


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"QUATRAIN_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/quatrain"),
        ({"HOME": "/c"}, "/c/.cache/quatrain"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name in ("QUATRAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_without_a_home_the_cache_is_to_be_named(monkeypatch):
    for name in ("QUATRAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # of a user without a name
    with pytest.raises(InputError, match="set QUATRAIN_CACHE"):
        cache_folder()


def test_the_advice_fits_the_reason(tmp_path):
    with (
        pytest.raises(InputError, match=r"\(there is no folder .*no\).* changed; choose another"),
        whole_file(tmp_path / "no" / "file"),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"No space left on device.*; free some space, or choose"),
        whole_file(tmp_path / "file"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(
            InputError, match=r"^\S+/file: .*left on device.*; free some space, or wait\."
        ),
        whole_file(tmp_path / "file", instead="wait") as temporary,
        whole_file(temporary),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["-", "pipe", "/dev/null", "/dev/stdout"])
def test_what_cannot_be_replaced_whole_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(InputError, match=f"{name}: .*give the name of"), whole_file(Path(name)):
        raise AssertionError("a device would be replaced")
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_room_is_taken_at_once_where_the_system_can(tmp_path, monkeypatch):
    with (tmp_path / "file").open("wb") as file:
        take_room(file, 8192)
    assert (tmp_path / "file").stat().st_blocks >= 16
    monkeypatch.delattr(os, "posix_fallocate")  # macOS
    with (tmp_path / "other").open("wb") as file:
        take_room(file, 8192)
