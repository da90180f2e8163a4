"""Layers behind a model's last, which predict several tokens at once and no program has."""

import re

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields

_LAYER = re.compile(r"model\.layers\.(\d+)\..+")


def further_layers(stored: LazyTensors, fields: Fields) -> set[str]:
    """The names of their tensors: of as many as `num_nextn_predict_layers` says."""
    if fields.get("num_nextn_predict_layers") is None:
        return set()
    layers = fields.layer_count()
    further = fields.integer("num_nextn_predict_layers", least=0)
    behind = range(layers, layers + further)
    found = {name: _LAYER.fullmatch(name) for name in stored}
    return {name for name, match in found.items() if match and int(match[1]) in behind}
