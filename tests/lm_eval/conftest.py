"""A tiny int4 checkpoint, and its programs, made once for all tests."""

from pathlib import Path

import pytest
from tests.support.tiny_programs import Tiny, shared_tiny


@pytest.fixture(scope="session")
def tiny(shared: Path) -> Tiny:
    return shared_tiny(shared)
