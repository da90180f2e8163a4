"""Gemma 3n's text model in a folder of the Hugging Face hub."""

import re

import torch

from quatrain.checkpoint.families.family import HuggingFaceReading, Params
from quatrain.checkpoint.families.gemma import ACTIVATIONS
from quatrain.checkpoint.families.gemma4.hugging_face import NAMES, shared_layers, unused_keys
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.rope.older_rope_fields import full_scaling
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_type
from quatrain.checkpoint.nth_layers import FULL, SLIDING, full_every

_DEFAULTS = {
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "vocab_size": 262400,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "sliding_window": 512,
    "final_logit_softcapping": 30.0,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
    "altup_active_idx": 0,
    "altup_correct_scale": True,
    "altup_num_inputs": 4,
    "num_kv_shared_layers": 15,
    "laurel_rank": 64,
}
_SPARSE, _SPARSE_LAYERS = 0.95, 10  # where activation_sparsity_pattern is not stated
MOST_STREAMS = 8
_SCALE = re.compile(r"model\.layers\.\d+\.altup\.correct_output_scale")
_TABLE = "model.embed_tokens_per_layer"


def _params(fields: Fields) -> Params:
    if fields.integer("altup_active_idx", least=0):
        raise fields.refusal("altup_active_idx", "0; other streams are not implemented")
    if not fields.flag("altup_correct_scale"):
        raise fields.refusal("altup_correct_scale", "true")
    streams = fields.integer("altup_num_inputs", least=2)
    if streams > MOST_STREAMS:
        raise fields.refusal("altup_num_inputs", f"at most {MOST_STREAMS}")
    layers = fields.layer_count()
    return _sparsity(fields, layers) | {
        "embedding_scale_factor": fields.integer("hidden_size") ** 0.5,
        "attention_multiplier": 1.0,
        "use_v_norm": True,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "sliding_window": fields.integer("sliding_window"),
        "layer_types": layer_types(fields) or full_every(5, layers),
        "num_kv_shared_layers": shared_layers(fields),
        "kv_shared_by_type": True,
        "per_layer_dim": fields.integer("hidden_size_per_layer_input"),
        "altup_num_inputs": streams,
        "laurel_rank": fields.integer("laurel_rank"),
        "output_soft_cap_temp": fields.number_or_none("final_logit_softcapping"),
    }


def _sparsity(fields: Fields, layers: int) -> Params:
    """The part of the gates that is cut in the first layers, and how many those are."""
    pattern = fields.get("activation_sparsity_pattern")
    if pattern is None:
        sparse = _SPARSE_LAYERS if layers > _SPARSE_LAYERS else 0
        pattern = [_SPARSE] * sparse + [0.0] * (layers - sparse)
    cut = cut_first(pattern, layers)
    if cut is None:
        expected = f"{layers} numbers: the same number from 0 to 1 for the first layers, then 0"
        raise fields.refusal("activation_sparsity_pattern", expected)
    return cut


def cut_first(pattern: object, layers: int) -> Params | None:
    """The fields for a `pattern` of one part for the first of `layers`, and 0 for the others."""
    first = pattern[0] if isinstance(pattern, list) and pattern else None
    if isinstance(first, bool) or not isinstance(first, int | float) or not 0 <= first < 1:
        return None
    assert isinstance(pattern, list)
    count = pattern.count(first) if first else 0
    if pattern != [first] * count + [0] * (layers - count):
        return None
    return {"activation_sparsity": float(first), "num_sparse_layers": count} if count else {}


def _rope(fields: Fields) -> Params:
    by_layer = fields.object_of("rope_parameters")
    sliding = by_layer.object_of(SLIDING)
    full = full_scaling(fields, by_layer.object_of(FULL))
    kinds = rope_type(by_layer.object_of(FULL)), rope_type(sliding)
    if by_layer.keys() - {FULL, SLIDING} or kinds != ("default", "default"):
        expected = f"'{FULL}' and '{SLIDING}', both without scaling"
        raise fields.refusal("rope_parameters", expected)
    if rope_type(full) != "default":
        raise fields.refusal("rope_scaling", "null, as in every released Gemma 3n")
    return {
        "rope_theta": full.number_or_none("rope_theta") or fields.number_or_none("rope_theta"),
        "local_rope_theta": sliding.number_or_none("rope_theta")
        or fields.number_or_none("rope_local_base_freq"),
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    named = stored.renamed(
        {name: f"{name}.weight" if _SCALE.fullmatch(name) else name for name in stored}
    )
    rows = fields.integer("vocab_size")
    stated = fields.integer("vocab_size_per_layer_input")
    fewer = {
        name: _with_rows(named.stored[name], rows)
        for name in (f"{_TABLE}.{part}" for part in ("weight", "scales", "zeros"))
        if name in named and named.stored[name].shape[:1] == (stated,) and stated < rows
    }
    return LazyTensors({**named.stored, **fewer})


def _with_rows(table: StoredTensor, rows: int) -> StoredTensor:
    """`table`, extended by its first row for each further token, as in transformers: those tokens
    are placeholders for images and audio."""
    return table.changed(
        lambda found: torch.cat((found, found[:1].repeat_interleave(rows - len(found), 0))),
        (rows, *table.shape[1:]),
    )


HUGGING_FACE = HuggingFaceReading(
    model_type="gemma3n_text",
    defaults=_DEFAULTS,
    params=_params,
    rope=_rope,
    names={
        **NAMES,
        "altup.modality_router": "alt_up.router",
        "altup.router_norm": "alt_up.router_norm",
        "altup.prediction_coefs": "alt_up.predict",
        "altup.correction_coefs": "alt_up.correct",
        "altup.correct_output_scale": "alt_up.scale",
        "laurel.linear_left": "laurel.left",
        "laurel.linear_right": "laurel.right",
        "laurel.post_laurel_norm": "laurel.norm",
        **{
            f"model.altup_{theirs}.{index}": f"alt_up.{ours}.{index}"
            for theirs, ours in (
                ("projections", "projections"),
                ("unembed_projections", "unembed"),
            )
            for index in range(MOST_STREAMS - 1)
        },
    },
    tensors=_tensors,
    unused=unused_keys,
    activations=ACTIVATIONS,
    tied=True,
)
