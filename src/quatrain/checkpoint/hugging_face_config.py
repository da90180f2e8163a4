"""What a Hugging Face config.json says about a model, in the fields of a params.json."""

from pathlib import Path
from typing import Any

from quatrain.backbone.config import load_params
from quatrain.checkpoint.families import family_of
from quatrain.checkpoint.families.family import number
from quatrain.checkpoint.families.rope import rope_params
from quatrain.checkpoint.float_model import usual_context
from quatrain.errors import InputError


def params_of_config(fields: dict[str, Any], source: str, names: set[str]) -> dict[str, Any]:
    """The params of config.json's `fields`, for a model that holds the Meta tensors `names`.

    Raises `InputError`, naming `source`, where the backbone does not implement one.
    """
    family = family_of(fields, source)
    if fields.get("mlp_bias"):
        raise InputError(f"{source}: mlp_bias is True, which this backbone does not implement")
    activation = fields.get("hidden_activation") or fields.get("hidden_act") or "silu"
    if activation not in family.activations:
        expected = " or ".join(map(repr, family.activations))
        raise InputError(f"{source}: hidden_act is {activation!r}, expected {expected}")
    params = {
        "dim": number(fields, "hidden_size", source),
        "n_layers": number(fields, "num_hidden_layers", source),
        "n_heads": number(fields, "num_attention_heads", source),
        "n_kv_heads": fields.get("num_key_value_heads"),
        "head_dim": fields.get("head_dim"),
        "hidden_dim": number(fields, "intermediate_size", source),
        "vocab_size": number(fields, "vocab_size", source),
        "norm_eps": number(fields, "rms_norm_eps", source),
        "act_fn": family.activations[activation],
        "use_hf_rope": True,
        "attention_qkv_bias": "layers.0.attention.wq.bias" in names,
        "use_qk_norm": "layers.0.attention.q_norm_fn.weight" in names,
        "max_seq_len": usual_context(number(fields, "max_position_embeddings", source)),
    }
    by_layer_type = "full_attention" in (fields.get("rope_parameters") or {})
    rope = {} if by_layer_type else rope_params(fields, source)
    return params | rope | family.params(fields, source)


def end_tokens(folder: Path, fields: dict[str, Any]) -> tuple[int | None, list[int]]:
    """The ids that begin and end a text: generation_config.json's, where it says."""
    generation = folder / "generation_config.json"
    said = {**fields, **(load_params(generation) if generation.is_file() else {})}
    eos = said.get("eos_token_id")
    eos_ids = eos if isinstance(eos, list) else [eos]
    bos = said.get("bos_token_id")
    return (
        bos if isinstance(bos, int) else None,
        [token for token in eos_ids if isinstance(token, int)],
    )
