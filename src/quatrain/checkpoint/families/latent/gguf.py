"""Latent attention in GGUF files."""

from quatrain.checkpoint.families.family import Params
from quatrain.checkpoint.families.latent.heads import Heads
from quatrain.checkpoint.gguf.metadata import GgufMetadata

NAMES = {
    "attn_q_a": "attention.wq_a",
    "attn_q_a_norm": "attention.q_norm",
    "attn_q_b": "attention.wq_b",
    "attn_kv_a_mqa": "attention.wkv_a",
    "attn_kv_a_norm": "attention.kv_norm",
    "attn_k_b": "attention.wk_b",
    "attn_v_b": "attention.wv_b",
}


def heads_of(metadata: GgufMetadata, keys: int, values: int) -> Heads:
    """Those of a file whose heads have so many channels of `keys`, rotated ones included, and of
    `values`. Raises `InputError` if there are none without rotation."""
    turning = metadata.count("rope.dimension_count")
    if turning >= keys:
        raise metadata.refuse("rope.dimension_count", f"expected less than a head's {keys}")
    heads, latent = (metadata.count(f"attention.{key}") for key in ("head_count", "kv_lora_rank"))
    return Heads(heads, keys - turning, turning, values, latent)


def latent_params(metadata: GgufMetadata, heads: Heads) -> Params:
    """As `GgufReading.params`: the sizes of `heads`, and the rank of queries, 0 where the file has
    none."""
    of_queries = metadata.get("attention.q_lora_rank")
    rank = 0 if of_queries is None else metadata.count("attention.q_lora_rank")
    return heads.params() | {"q_lora_rank": rank}
