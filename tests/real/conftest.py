"""What the tests on a real model share."""

from pathlib import Path

import pytest
from tests.support.models.real_models import RealModel, smollm2_model


@pytest.fixture(scope="session")
def smollm2(shared: Path) -> RealModel:
    return smollm2_model(shared)
