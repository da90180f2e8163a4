"""Lets the tests of this folder import the helpers of tests/program and tests/export."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("program", "export")]
