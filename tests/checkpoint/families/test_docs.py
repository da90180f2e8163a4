"""docs/families.md: its table has a row for each that the families' table names."""

import re

from tests.checkpoint.families.table import ROWS
from tests.support.paths import DOCS
from tests.support.peers import TOLERANCE

PAGE = DOCS / "families.md"


def test_every_row_is_measured():
    rows = re.findall(r"^\| (.+?) \| `.*\| (\d\.\de-\d\d) \|$", PAGE.read_text(), re.M)
    documented = dict.fromkeys(row.documented for row in ROWS.values())
    assert [name for name, _ in rows] == list(documented)
    assert all(float(error) < TOLERANCE for _, error in rows)
