"""What the tests on a real model share."""

from pathlib import Path

import pytest
from tests.support.smollm2 import SmolLM2


@pytest.fixture(scope="session")
def smollm2(shared: Path) -> SmolLM2:
    return SmolLM2(shared)
