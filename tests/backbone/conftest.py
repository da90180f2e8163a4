import sys
from pathlib import Path

import pytest

# pytest imports each test file by its path, so what they share is found like this.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def linears_lowered_once():
    """XNNPACK's delegate of a linear depends on its shape alone: one does for all programs."""
    import quatrain.export.xnnpack as xnnpack

    lower, lowered = xnnpack._lower_template, {}

    def once(linear, tokens):
        shape = xnnpack._shape_of(linear, tokens)
        if shape not in lowered:
            lowered[shape] = lower(linear, tokens)
        return lowered[shape]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xnnpack, "_lower_template", once)
        yield
