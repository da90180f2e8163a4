"""A tiny program for the CPU, made once for all tests of this folder."""

from pathlib import Path

import pytest
from tests.support.models.tiny_programs import shared_tiny_xnnpack


@pytest.fixture(scope="session")
def tiny_xnnpack(shared: Path) -> Path:
    return shared_tiny_xnnpack(shared)
