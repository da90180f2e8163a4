"""docs/families.md: its table has the rows that measure_families.py prints."""

import re

from tests.checkpoint.families.measure_families import ROWS
from tests.support.paths import DOCS
from tests.support.peers import TOLERANCE

PAGE = DOCS / "families.md"


def test_every_row_is_measured():
    rows = re.findall(r"^\| (.+?) \| `.*\| (\d\.\de-\d\d) \|$", PAGE.read_text(), re.M)
    assert [name for name, _ in rows] == list(ROWS)
    assert all(float(error) < TOLERANCE for _, error in rows)
