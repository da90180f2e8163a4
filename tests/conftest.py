"""What every test shares."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tests.support.downloads import use_new_cache

if TYPE_CHECKING:
    from tests.support.models.tiny_programs import Tiny

# Files of few tests that take long, and folders of such: a worker begins with these, so that none
# is left with one when all others are done.
_LONGEST_FIRST = ("docs/test_snippets.py", "real/", "test_cli.py", "verify/", "export/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files that `--no-loadscope-reorder` hands out as they come."""
    tests = Path(__file__).parent

    def turn(item: pytest.Item) -> int:
        file = item.path.relative_to(tests).as_posix()
        begins = [file.startswith(first) for first in _LONGEST_FIRST]
        return begins.index(True) if any(begins) else len(begins)

    items.sort(key=turn)


def pytest_configure(config: pytest.Config) -> None:
    # Lowering makes so many objects that the default of 700 spends a tenth of its time here.
    gc.set_threshold(20_000, 10, 10)
    if not hasattr(config, "workerinput"):  # xdist's workers have the cache of what started them
        use_new_cache(config)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """In 8da4w a rounding that falls the other way is a step of int8, which one random input in
    many meets: the same inputs every time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this run share, for `made_once`."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "shared"


@pytest.fixture(scope="session")
def tiny(shared: Path) -> "Tiny":
    """A tiny int4 checkpoint, and its programs, made once for all tests."""
    from tests.support.models.tiny_programs import (
        shared_tiny,  # takes the exporters, which few tests need
    )

    return shared_tiny(shared)
