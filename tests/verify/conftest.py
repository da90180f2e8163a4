"""A tiny int4 checkpoint, and its programs, made once for all tests of this folder."""

from pathlib import Path

import pytest
from tests.support.tiny_programs import Tiny, shared_tiny, shared_tiny_xnnpack


@pytest.fixture(scope="session")
def tiny(shared: Path) -> Tiny:
    return shared_tiny(shared)


@pytest.fixture(scope="session")
def tiny_xnnpack(shared: Path) -> Path:
    return shared_tiny_xnnpack(shared)
