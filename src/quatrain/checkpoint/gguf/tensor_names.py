"""Converts llama.cpp's tensor names in GGUF files to Meta's."""

import re
from collections.abc import Mapping

from quatrain.checkpoint.names_in_file import InFile, names_in_file

_NAMES = {
    "token_embd": "tok_embeddings",
    "output_norm": "norm",
    "output": "output",
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "attn_q_norm": "attention.q_norm_fn",
    "attn_k_norm": "attention.k_norm_fn",
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3",
}
# Of families that norm what attention and feed-forward give; others call another norm so.
POST_NORMS = {"post_attention_norm": "post_attention_norm", "post_ffw_norm": "post_ffn_norm"}
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(([\w.]+?)(\.weight|\.bias)?)")


def meta_name(name: str, others: Mapping[str, str]) -> str:
    """`name` in Meta's naming, or itself if it is unknown, which is reported later. `others`:
    further names of its family, of modules, or of tensors other than weights and biases."""
    match = _NAME.fullmatch(name)
    if not match:
        return name
    index, whole, module, kind = match.groups()
    layer = f"layers.{index}." if index else ""
    if whole in others:
        return f"{layer}{others[whole]}"
    known = {**_NAMES, **others}
    return f"{layer}{known[module]}{kind}" if kind and module in known else name


def in_file(called: Mapping[str, str], others: Mapping[str, str]) -> InFile:
    """What a file calls the tensor of a name of Meta's, where `called` has what it holds. `others`:
    as of `meta_name`."""
    return names_in_file(called, {**_NAMES, **others}, "blk.")
