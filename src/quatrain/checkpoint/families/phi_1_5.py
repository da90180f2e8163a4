"""Phi 1, 1.5 and 2: layer norms, attention and feed-forward in parallel, part of each head rotated,
a feed-forward without a gate, and a bias of every linear, of the output too."""

from functools import partial

from quatrain.checkpoint.families.family import (
    APPROXIMATE_GELU,
    Biases,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.errors import InputError

_UNLIKE_LLAMA = {
    "norm_type": "layer",
    "norm_bias": True,
    "parallel_residual": True,
    "feed_forward_gate": False,
    "feed_forward_bias": True,
    "attention_output_bias": True,
    "output_bias": True,
}
_OUTPUT_BIAS = "lm_head.bias"


def _params(fields: Fields) -> Params:
    if fields.flag("qk_layernorm"):
        raise InputError(
            f"{fields.source}: qk_layernorm is true: each head has its own layer norm, which this "
            "backbone does not implement; Phi 1, 1.5 and 2 do not use it"
        )
    return _UNLIKE_LLAMA


def with_output_bias(stored: LazyTensors) -> LazyTensors:
    """Their output's bias under its name here."""
    return stored.renamed(
        {name: "output_bias.bias" if name == _OUTPUT_BIAS else name for name in stored}
    )


PHI_1_5 = Family(
    hugging_face=HuggingFaceReading(
        model_type="phi",
        biases=Biases(True, True, True),
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 51200,
            "hidden_act": "gelu_new",
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        },
        params=_params,
        rope=partial(partial_rope_params, rotated=0.5),
        names={
            "self_attn.dense": "attention.wo",
            "mlp.fc1": "feed_forward.w1",
            "mlp.fc2": "feed_forward.w2",
            "model.final_layernorm": "norm",
            "output_bias": "output_bias",
        },
        tensors=lambda stored, fields: with_output_bias(stored),
        activations=APPROXIMATE_GELU,
    ),
    gguf=GgufReading(
        "phi2",
        half_split=True,
        params=lambda metadata: _UNLIKE_LLAMA | {"act_fn": "gelu_approx"} | metadata.rotated_part(),
        names={"ffn_up": "feed_forward.w1", "output.bias": "output_bias.bias"},
        fused=GgufMetadata.fused_attention,  # in the first files
        biased=True,
    ),
)
