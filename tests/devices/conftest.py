"""Lets the tests of this folder import `program_support` of tests/program."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "program"))
