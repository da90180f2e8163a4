"""OPT and Galactica: learned positions, layer norms, a feed-forward without a gate, with ReLU, and
a bias of each linear."""

from quatrain.checkpoint.families.family import Biases, Family, HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields

_POSITIONS = "model.embed_positions.weight"
_OFFSET = 2  # rows of that table before the first position's


def _params(fields: Fields) -> Params:
    if not fields.flag("do_layer_norm_before") or fields.flag("_remove_final_layer_norm"):
        name = "_remove_final_layer_norm"
        name = name if fields.flag("do_layer_norm_before") else "do_layer_norm_before"
        expected = "as in all OPT but 350M: norms before attention, feed-forward and output"
        raise fields.refusal(name, expected)
    if not fields.flag("layer_norm_elementwise_affine"):
        expected = "true: norms without weights are not implemented for this family"
        raise fields.refusal("layer_norm_elementwise_affine", expected)
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    if fields.integer_or_none("word_embed_proj_dim") not in (None, hidden):
        raise fields.refusal("word_embed_proj_dim", f"hidden_size, which is {hidden}, or null")
    return {
        "no_rope_layer_interval": 1,
        "n_kv_heads": heads,
        "head_dim": hidden // heads,
        "learned_positions": fields.integer("max_position_embeddings"),
        "norm_type": "layer",
        "norm_bias": True,
        "feed_forward_gate": False,
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    rows = fields.integer("max_position_embeddings")
    if _POSITIONS in stored and stored.stored[_POSITIONS].shape[:1] != (rows + _OFFSET,):
        shape = list(stored.stored[_POSITIONS].shape)
        expected = f"{_OFFSET} less than the rows of {_POSITIONS}, whose shape is {shape}"
        raise fields.refusal("max_position_embeddings", expected)
    return stored.each(
        lambda name, tensor: tensor.rows(_OFFSET, rows) if name == _POSITIONS else tensor
    )


OPT = Family(
    hugging_face=HuggingFaceReading(
        model_type="opt",
        biases=Biases("enable_bias", "enable_bias", "enable_bias"),
        defaults={
            "num_attention_heads": 12,
            "vocab_size": 50272,
            "max_position_embeddings": 2048,
            "activation_function": "relu",
            "do_layer_norm_before": True,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
        },
        norm_eps=1e-5,
        params=_params,
        rope=lambda fields: {},
        names={
            "model.embed_positions": "positions",
            "self_attn.out_proj": "attention.wo",
            "self_attn_layer_norm": "attention_norm",
            "final_layer_norm": "ffn_norm",
            "fc1": "feed_forward.w1",
            "fc2": "feed_forward.w2",
            "model.final_layer_norm": "norm",
        },
        on_hub={"model.decoder.": "model.", "decoder.": "model."},
        tensors=_tensors,
        aliases={"ffn_dim": "intermediate_size"},
        activations={"relu": "relu", "gelu": "gelu"},
        tied=True,
    )
)
