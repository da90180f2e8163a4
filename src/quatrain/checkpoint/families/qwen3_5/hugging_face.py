"""Qwen 3.5, dense, in a folder of the Hugging Face hub."""

from quatrain.checkpoint.families.family import HuggingFaceReading, Params, sizes
from quatrain.checkpoint.families.qwen import of_one_position
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.checkpoint.hugging_face.tensors.norms import norms_plus_one
from quatrain.checkpoint.nth_layers import full_every

DELTA = "linear_attention"
INTERVAL = 4  # of attention, if config.json says nothing
_QUERIES, _GATE = "self_attn.q_proj", "self_attn.gate_proj"  # one matrix in the files
_DELTA_PARTS = (
    "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "conv1d", "A_log", "dt_bias", "norm",
    "out_proj",
)  # fmt: skip
DEFAULTS = {
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 248320,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}


def params(fields: Fields) -> Params:
    """As `HuggingFaceReading.params`: the heads of the delta rules, and which layers have them."""
    if fields.flag("attention_bias"):
        raise fields.refusal("attention_bias", "false: gates with a bias are not implemented")
    return sizes_of_delta_rules(fields) | {
        "layer_types": _layer_types(fields),
        "use_qk_norm": True,
        "use_attn_o_gate": True,
    }


def sizes_of_delta_rules(fields: Fields) -> Params:
    """The heads of delta rules and the taps of their convolutions."""
    sizes = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim",
             "linear_value_head_dim")  # fmt: skip
    taps = fields.integer("linear_conv_kernel_dim", least=2)
    return {name: fields.integer(name) for name in sizes} | {"linear_conv_kernel_dim": taps}


def _layer_types(fields: Fields) -> list[str]:
    kinds = layer_types(fields, DELTA)
    if kinds is not None:
        return kinds
    interval = fields.integer_or_none("full_attention_interval") or INTERVAL
    return full_every(interval, fields.layer_count(), DELTA)


def rope(fields: Fields) -> Params:
    """As `HuggingFaceReading.rope`: a quarter of each head is rotated unless config.json says
    otherwise."""
    return partial_rope_params(of_one_position(fields), rotated=0.25)


def tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """Each head's queries and gate lie side by side; norms are stored as differences from 1, except
    that of a delta rule's output."""
    heads = fields.integer("num_attention_heads")
    about_0, others = {}, {}
    for name, tensor in stored.stored.items():
        before, is_queries, kind = name.partition(f"{_QUERIES}.")
        if is_queries:
            for index, part in enumerate((_QUERIES, _GATE)):
                own = f"{before}{part}.{kind}"
                others[own] = _of_heads(tensor, heads, index, name, fields.source)
        elif name.endswith("linear_attn.norm.weight"):
            others[name] = tensor
        else:
            about_0[name] = tensor
    about_1 = norms_plus_one(LazyTensors(about_0), fields)
    return LazyTensors(about_1.stored | others)


def predicts_further(stored: LazyTensors, fields: Fields) -> set[str]:
    """What writes several tokens at once (multi-token prediction)."""
    return {name for name in stored if name.startswith("mtp.")}


def _of_heads(tensor: StoredTensor, heads: int, index: int, name: str, source: str) -> StoredTensor:
    """The first (0) or second (1) half of the rows of each head."""
    rows = tensor.shape[0] if tensor.shape else 0
    if rows % (2 * heads):
        expected = f"queries and a gate for each of {heads} heads"
        raise Fields({name: f"[{rows}, ...]"}, source).refusal(name, expected)
    return tensor.changed(
        lambda whole: whole.unflatten(0, (heads, 2, -1))[:, index].flatten(0, 1),
        (rows // 2, *tensor.shape[1:]),
    )


NAMES = {
    _GATE: "attention.og",
    **{f"linear_attn.{part}": f"attention.{part}" for part in _DELTA_PARTS},
}

HUGGING_FACE = HuggingFaceReading(
    model_type="qwen3_5_text",
    defaults=DEFAULTS,
    sizes=sizes(4096, 12288, 32),
    params=params,
    rope=rope,
    names=NAMES,
    tensors=tensors,
    unused=predicts_further,
)
