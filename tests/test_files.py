"""What is kept between runs, and where."""

from pathlib import Path

import pytest

from quatrain.files import cache_folder


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
