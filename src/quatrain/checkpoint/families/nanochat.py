"""NanoChat: a Llama whose norms have no weights, one of them over the embedding, whose heads turn
the other way, and whose feed-forward has no gate and squares its relu."""

from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.norms import with_norms_of_ones
from quatrain.errors import InputError

_ROTATED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


def _params(fields: Fields) -> Params:
    return {
        "normalize_tok_embeddings": True,
        "use_qk_norm": True,
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "feed_forward_gate": False,
        "output_soft_cap_temp": fields.number_or_none("final_logit_softcapping"),
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """Add norms of ones, and exchange the halves of query and key heads: transformers rotates them
    by the opposite angle, and this leaves all products of the two unchanged."""
    made = dict(stored.stored)
    for name, tensor in stored.stored.items():
        part = name.split(".")[-2] if name.count(".") > 1 else ""
        if part in _ROTATED:
            heads = fields.integer_or_none(_ROTATED[part])
            all_heads = fields.integer("num_attention_heads")
            made[name] = _with_exchanged_halves(tensor, heads or all_heads, name, fields.source)
    return with_norms_of_ones(LazyTensors(made), fields)


def _with_exchanged_halves(
    tensor: StoredTensor, heads: int, name: str, source: str
) -> StoredTensor:
    rows = tensor.shape[0] if tensor.shape else 0
    if rows % (2 * heads):
        raise InputError(
            f"{source}: {name} has {rows} rows, expected an even number of rows for each of "
            f"{heads} heads"
        )
    return tensor.changed(lambda whole: whole.unflatten(0, (heads, 2, -1)).flip(1).flatten(0, 2))


NANOCHAT = Family(
    hugging_face=HuggingFaceReading(
        model_type="nanochat",
        defaults={
            "num_attention_heads": 6,
            "vocab_size": 50304,
            "hidden_act": "relu2",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "final_logit_softcapping": 15.0,
        },
        params=_params,
        names={"mlp.fc1": "feed_forward.w1", "mlp.fc2": "feed_forward.w2"},
        tensors=_tensors,
        activations={"relu2": "relu2"},
    ),
)
