"""Falcon-H1: in every layer attention and a state space (Mamba-2) beside it, and factors of what
most linears read or give, which are made part of their weights here as in llama.cpp's files."""

from functools import partial

import torch

from quatrain.checkpoint.families import state_spaces
from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.mlx_layout import is_mlx_filter
from quatrain.errors import InputError

HYBRID = "hybrid"
# A factor of each row, or one for all: of a matrix, and of its bias.
_Factors = tuple[torch.Tensor, torch.Tensor]


def _params(fields: Fields) -> Params:
    for name, released in (("attn_layer_indices", None), ("mamba_use_mlp", True)):
        if fields.get(name) not in (None, released):
            raise fields.refusal(name, f"{released}, as in every released Falcon-H1")
    layers = fields.layer_count()
    return _space_params(fields) | {
        "layer_types": [HYBRID] * layers,
        "mamba_out_bias": fields.flag("projectors_bias"),
        "mamba_norm": _norm(fields),
        "embedding_scale_factor": fields.number("embedding_multiplier"),
        "logits_scaling": 1 / fields.number("lm_head_multiplier"),
    }


def _space_params(fields: Fields) -> Params:
    width = fields.integer_or_none("mamba_d_ssm")
    if width is None:
        return state_spaces.params_of_expanded(fields)
    return state_spaces.params(fields, width)


def _norm(fields: Fields) -> str:
    if not fields.flag("mamba_rms_norm"):
        return "none"
    return "before_gate" if fields.flag("mamba_norm_before_gate") else "after_gate"


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    params = _space_params(fields)
    apart = state_spaces.tensors(stored, params, fields.source)
    factors = _factors(fields, params)
    found: dict[str, StoredTensor] = {}
    for name, tensor in apart.stored.items():
        module, _, kind = name.rpartition(".")
        factor = factors.get(".".join(module.split(".")[-2:]))
        quantized = kind == "weight" and f"{module}.scales" in apart
        if factor is None or quantized or kind == "zeros":
            found[name] = tensor
        else:
            found[name] = _multiplied(tensor, factor[kind == "bias"])
    return LazyTensors(found)


def _refuse_mlx(stored: LazyTensors, fields: Fields) -> set[str]:
    """No tensor is unused. Raises `InputError` for filters as mlx-lm lays them out: of the factors
    its versions make part of the weights some and leave others, and no file says which."""
    for name, tensor in stored.stored.items():
        if is_mlx_filter(name, tensor):
            raise InputError(
                f"{fields.source}: {name} is laid out as mlx-lm does it, whose versions make "
                "different multipliers of a Falcon-H1 part of its weights; give the original "
                "model's folder, or its GGUF file"
            )
    return set()


def _factors(fields: Fields, params: Params) -> dict[str, _Factors]:
    """What the linears that are called so, or their scales, and their biases are multiplied by."""
    attention_in, attention_out, key, space_in, space_out = (
        fields.number(f"{name}_multiplier")
        for name in ("attention_in", "attention_out", "key", "ssm_in", "ssm_out")
    )
    gate, down = _listed(fields, "mlp_multipliers", 2)
    parts = torch.tensor(_listed(fields, "ssm_multipliers", 5))
    rows = state_spaces.rows_of_parts(params)
    groups = params["mamba_n_groups"] * params["mamba_state_size"]
    mixed = parts[1:4].repeat_interleave(torch.tensor([rows["in_proj_z"], groups, groups]))
    given = {
        "self_attn.q_proj": (attention_in, 1.0),
        "self_attn.k_proj": (attention_in * key, key),
        "self_attn.v_proj": (attention_in, 1.0),
        "self_attn.o_proj": (attention_out, attention_out),
        "feed_forward.gate_proj": (gate, gate),
        "feed_forward.down_proj": (down, down),
        "mamba.in_proj_z": (parts[0] * space_in, parts[0]),
        "mamba.in_proj_xBC": (mixed * space_in, mixed),
        "mamba.in_proj_dt": (parts[4] * space_in, parts[4]),
        "mamba.out_proj": (space_out, space_out),
    }
    return {
        name: (torch.as_tensor(of_weight), torch.as_tensor(of_bias))
        for name, (of_weight, of_bias) in given.items()
    }


def _listed(fields: Fields, name: str, count: int) -> list[float]:
    if fields.get(name) is None:
        return [1.0] * count
    numbers = fields.numbers(name)
    if len(numbers) != count:
        raise fields.refusal(name, f"{count} positive numbers, or null")
    return [float(number) for number in numbers]


def _multiplied(tensor: StoredTensor, factor: torch.Tensor) -> StoredTensor:
    if bool((factor == 1).all()):
        return tensor
    by_row = partial(_by_row, factor=factor.float())
    return tensor.changed(by_row, dtype=torch.float32)


def _by_row(rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return rows.float() * (factor.view(-1, *[1] * (rows.dim() - 1)) if factor.dim() else factor)


def _gguf_params(metadata: GgufMetadata) -> Params:
    normed = metadata.has_tensors("ssm_norm.weight")
    return state_spaces.gguf_params(metadata) | {
        "layer_types": [HYBRID] * metadata.layer_count(),
        "mamba_norm": "after_gate" if normed else "none",
    }


FALCON_H1 = Family(
    hugging_face=HuggingFaceReading(
        model_type="falcon_h1",
        defaults={
            **state_spaces.DEFAULTS,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128000,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "mlp_bias": False,
            "mamba_d_ssm": 1024,
            "mamba_norm_before_gate": True,
            "embedding_multiplier": 1.0,
            "lm_head_multiplier": 1.0,
            "key_multiplier": 1.0,
            "attention_in_multiplier": 1.0,
            "attention_out_multiplier": 1.0,
            "ssm_in_multiplier": 1.0,
            "ssm_out_multiplier": 1.0,
        },
        params=_params,
        names=state_spaces.NAMES | state_spaces.NAMES_BEFORE_FEED_FORWARD,
        tensors=_tensors,
        unused=_refuse_mlx,
    ),
    gguf=GgufReading(
        "falcon-h1",
        half_split=True,
        params=_gguf_params,
        names={
            # llama.cpp's converter leaves out the ".weight" of this one.
            "ffn_norm": "ffn_norm.weight",
            "ffn_norm.weight": "ffn_norm.weight",
            **state_spaces.GGUF_NAMES,
        },
        fused=state_spaces.gguf_fused,
        filters=state_spaces.FILTERS,
        tensors=state_spaces.gguf_tensors,
    ),
)
