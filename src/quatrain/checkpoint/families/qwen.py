"""Qwen 2.5 and Qwen 3, dense: bias on Q, K and V, or RMS norm of each query and key head (both
seen from the tensors that are there)."""

from typing import Any

from quatrain.checkpoint.families.family import Family, Fields, sliding_window


def _params(fields: Fields, source: str) -> dict[str, Any]:
    return sliding_window(fields, source) if fields.get("use_sliding_window") else {}


QWEN = Family(params=_params)
