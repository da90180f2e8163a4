"""Nemotron 3 and Minitron: layer norms whose weights are stored as differences from 1, half of each
head rotated, a feed-forward with a squared relu and without a gate."""

from functools import partial

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.checkpoint.hugging_face.tensors.norms import norms_plus_one

_UNLIKE_LLAMA = {"norm_type": "layer", "norm_bias": True, "feed_forward_gate": False}


def _gguf_params(metadata: GgufMetadata) -> Params:
    return _UNLIKE_LLAMA | {"act_fn": "relu2"} | metadata.rotated_part()


NEMOTRON = Family(
    hugging_face=HuggingFaceReading(
        model_type="nemotron",
        defaults={
            "num_attention_heads": 48,
            "vocab_size": 256000,
            "hidden_act": "relu2",
            "max_position_embeddings": 4096,
            "norm_eps": 1e-5,
            "mlp_bias": False,
            "rope_theta": 10000.0,
        },
        params=lambda fields: _UNLIKE_LLAMA,
        rope=partial(partial_rope_params, rotated=0.5),
        names={"mlp.up_proj": "feed_forward.w1"},
        tensors=norms_plus_one,
        activations={"relu2": "relu2"},
    ),
    # A file holds the weights of norms themselves, not differences from 1.
    gguf=GgufReading(
        "nemotron",
        half_split=True,
        params=_gguf_params,
        names={"ffn_up": "feed_forward.w1"},
    ),
)
