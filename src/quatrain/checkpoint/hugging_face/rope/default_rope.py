"""The rotary embedding that a family's class has if config.json states none."""

from collections.abc import Mapping
from typing import Any

from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import refuse_unread_base
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params, scaled_rope


def rope_params_or(fields: Fields, default: Mapping[str, Any]) -> dict[str, Any]:
    """As `rope_params`, of a family whose class has `default` for missing rope_parameters, which
    an empty object is not. Raises `InputError` if rope_theta is then another than that one's."""
    if fields.get("rope_parameters") == {} or any(
        fields.object_of(name) for name in ("rope_scaling", "rope_parameters")
    ):
        return rope_params(fields)
    refuse_unread_base(fields, default["rope_theta"])
    return scaled_rope(fields, Fields(default, fields.source))
