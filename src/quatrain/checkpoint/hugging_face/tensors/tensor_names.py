"""Converts Hugging Face's tensor names to Meta's."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from quatrain.checkpoint.names_in_file import InFile, names_in_file


def gated_names(theirs: str, ours: str = "feed_forward", down: str = "down_proj") -> dict[str, str]:
    """The names in Meta's of a feed-forward's linears, of which one is a gate: of those in the
    module `theirs` of a folder, whose last one it calls `down`, as the module `ours`."""
    linears = {"gate_proj": "w1", down: "w2", "up_proj": "w3"}
    return {f"{theirs}.{name}": f"{ours}.{own}" for name, own in linears.items()}


_NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "self_attn.q_norm": "attention.q_norm_fn",
    "self_attn.k_norm": "attention.k_norm_fn",
    **gated_names("mlp"),
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
# Of families that norm what attention and feed-forward give; others call another norm so.
POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffn_norm",
}
_NAME = re.compile(r"(?:model\.layers\.(\d+)\.)?([\w.]+?)(\.(?:weight|bias|scales|zeros))?")

_FLOATING = re.compile(
    r".*\.(?:feed_forward\.(?:router|shared_gate)|attention\.in_proj_[ab]"
    r"|alt_up\.(?:router|predict|correct)"
    # As their families have them before they are cut or renamed.
    r"|in_proj_ba|router\.layer|kv_b_proj)"
    r"\.weight"
)


def is_computed_in_floating_point(name: str, others: Mapping[str, str]) -> bool:
    """Whether the backbone computes the matrix `name` in floating point, whatever a file has.
    `others`: as of `meta_name`."""
    return _FLOATING.fullmatch(meta_name(f"{name}.weight", others)) is not None


def meta_name(name: str, others: Mapping[str, str] = MappingProxyType({})) -> str:
    """`name` in Meta's naming, or itself if it is unknown. `others`: the names that its family has
    besides, or for something else."""
    match = _NAME.fullmatch(name)
    known = {**_NAMES, **others}
    if not match or match[2] not in known:
        return name  # reported by name, later
    layer = f"layers.{match[1]}." if match[1] else ""
    return f"{layer}{known[match[2]]}{match[3] or ''}"


def in_file(called: Mapping[str, str], others: Mapping[str, str]) -> InFile:
    """What a folder calls the tensor of a name of Meta's, where `called` has what it holds.
    `others`: as of `meta_name`."""
    return names_in_file(called, {**_NAMES, **others}, "model.layers.")
