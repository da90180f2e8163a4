"""The names of the metrics are those in the documentation: monitoring looks them up."""

import re

from prometheus_client.parser import text_string_to_metric_families
from tests.support.paths import DOCS

from quatrain.serve.metrics import Metrics


def test_every_metric_is_documented_under_its_name():
    families = text_string_to_metric_families(Metrics().text().decode())
    served = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    rows = re.findall(r"^\| (`quatrain_.*?) \|", (DOCS / "serve.md").read_text(), re.MULTILINE)
    assert served == set(re.findall(r"quatrain_\w+", " ".join(rows)))
