"""Rotary embeddings of families in which layers differ: only part of the planes is rotated, or
all."""

from collections.abc import Mapping
from typing import Any

from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import refuse_unread_base
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_type
from quatrain.checkpoint.nth_layers import FULL, SLIDING


def proportional_rope(fields: Fields, default: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary embedding in `rope_parameters`, or in `default` if they are missing, of a family
    whose full-attention layers may rotate only a part of the planes, at the same angles as if all
    were rotated."""
    by_layer = fields.object_of("rope_parameters") or Fields(default, fields.source)
    if fields.object_of("rope_scaling"):
        raise fields.refusal("rope_scaling", "null: models of this model_type have rope_parameters")
    full, sliding = (by_layer.object_of(name) for name in (FULL, SLIDING))
    if by_layer.keys() != default.keys() or rope_type(sliding) != "default":
        expected = f"'{FULL}' and '{SLIDING}', the second of rope_type 'default'"
        raise fields.refusal("rope_parameters", expected)
    if "rope_theta" in fields and fields["rope_theta"] is not None:
        refuse_unread_base(fields, full.number("rope_theta"), f"layers of '{FULL}'")
    kind = rope_type(full)
    if kind not in ("default", "proportional") or full.get("factor") not in (None, 1, 1.0):
        raise by_layer.refusal(FULL, "rope_type 'proportional' or 'default', no factor")
    planes = full.number_or_none("partial_rotary_factor") or 1.0
    if planes > 1:
        raise full.refusal("partial_rotary_factor", "at most 1")
    return {
        "rope_theta": full.number("rope_theta"),
        "local_rope_theta": sliding.number("rope_theta"),
        "global_rotary_planes": planes if kind == "proportional" else 1.0,
    }
