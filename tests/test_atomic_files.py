"""What is kept between runs, and where."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quatrain.atomic_files import cache_folder, take_room, whole_file, whole_folder
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


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "real").write_text("real")
    for name, leads_to in (("link", "real"), ("broken", "nowhere")):
        (tmp_path / name).symlink_to(leads_to)
        with whole_file(tmp_path / name) as made:
            made.write_text("made")
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "made"
    assert (tmp_path / "real").read_text() == "real" and not (tmp_path / "nowhere").exists()


def test_room_is_taken_at_once_where_the_system_can(tmp_path, monkeypatch):
    with (tmp_path / "file").open("wb") as file:
        take_room(file, 8192)
    assert (tmp_path / "file").stat().st_blocks >= 16
    monkeypatch.delattr(os, "posix_fallocate")  # macOS
    with (tmp_path / "other").open("wb") as file:
        take_room(file, 8192)


def _made_long_ago(folder):
    [temporary] = folder.glob(".out.*.tmp")
    os.utime(temporary, (0, 0))
    return temporary


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_what_a_killed_process_left_goes_when_the_same_is_made_again(tmp_path, whole):
    code = f"""
import os, signal
from pathlib import Path
from quatrain.atomic_files import whole_file, {whole.__name__}
with {whole.__name__}(Path({str(tmp_path)!r}) / "out") as made:
    with whole_file(made if made.is_file() else made / "inner") as inner:
        inner.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = _made_long_ago(tmp_path)
    with whole(tmp_path / "out"):
        assert not left.exists()
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_what_is_still_worked_in_stays(tmp_path):
    with whole_file(tmp_path / "out") as first:
        first.write_text("first")
        _made_long_ago(tmp_path)
        with whole_file(tmp_path / "out") as second:
            second.write_text("second")
        assert (tmp_path / "out").read_text() == "second"
    assert (tmp_path / "out").read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_what_others_have_called_alike_stays(tmp_path):
    file, longer = tmp_path / ".out.mine-own.tmp", tmp_path / ".out.of-another.tmp"
    file.write_text("")
    longer.mkdir()
    os.utime(file, (0, 0)), os.utime(longer, (0, 0))
    with whole_file(tmp_path / "out"):
        pass
    assert file.exists() and longer.exists()
