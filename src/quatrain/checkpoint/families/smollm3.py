"""SmolLM3: every fourth layer without rotary embedding."""

from typing import Any

from quatrain.checkpoint.families.family import Family, Fields, interval_of, sliding_window


def _params(fields: Fields, source: str) -> dict[str, Any]:
    flags = fields.get("no_rope_layers") or []  # 1 where there is rotary embedding
    params = {"no_rope_layer_interval": interval_of(flags, 0, "no_rope_layers", source)}
    return params | (sliding_window(fields, source) if fields.get("use_sliding_window") else {})


SMOLLM3 = Family(params=_params)
