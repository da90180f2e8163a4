"""What the suite takes from the network is kept between runs, in the user's own cache.

All else that Quatrain keeps is of one run: `tests/conftest.py` gives each an empty cache, so that
no verdict hangs on what an earlier run, or another version, left there.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from quatrain.atomic_files import cache_folder

_USERS = "QUATRAIN_USERS_CACHE"


def use_new_cache(config: pytest.Config) -> None:
    """Set QUATRAIN_CACHE to a new folder, for this process and all that it starts; it goes as the
    run ends."""
    os.environ[_USERS] = str(cache_folder())
    os.environ["QUATRAIN_CACHE"] = tempfile.mkdtemp(prefix="quatrain-tests-")
    config.add_cleanup(lambda: shutil.rmtree(os.environ["QUATRAIN_CACHE"], ignore_errors=True))


@contextmanager
def users_cache() -> Iterator[None]:
    """Within, QUATRAIN_CACHE is the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUATRAIN_CACHE", os.environ[_USERS])
        yield
