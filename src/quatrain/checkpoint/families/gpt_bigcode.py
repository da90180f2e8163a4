"""GPT-BigCode (StarCoder 1, SantaCoder): as GPT-2, its matrices not transposed; one head of keys
and values for all queries."""

from quatrain.checkpoint.families import gpt2
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
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart, rows_of_heads_apart

_FUSED = "c_attn"


def _params(fields: Fields) -> Params:
    params = gpt2.params_with_positions(fields)
    return params | ({"n_kv_heads": 1} if fields.flag("multi_query") else {})


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    width = hidden // heads
    if fields.flag("multi_query"):
        parts = {"q_proj": hidden, "k_proj": width, "v_proj": width}
        return rows_apart(stored, {_FUSED: parts}, fields.source)
    of_head = {"q_proj": width, "k_proj": width, "v_proj": width}
    return rows_of_heads_apart(stored, _FUSED, of_head, heads, fields.source)


GPT_BIGCODE = Family(
    hugging_face=HuggingFaceReading(
        model_type="gpt_bigcode",
        biases=Biases(True, True, True),
        defaults={
            "vocab_size": 50257,
            "activation_function": "gelu_pytorch_tanh",
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
            "multi_query": True,
        },
        params=_params,
        rope=lambda fields: {},
        names=gpt2.NAMES,
        on_hub=gpt2.ON_HUB,
        tensors=_tensors,
        unused=gpt2.causal_masks,
        aliases=gpt2.ALIASES,
        activations={"gelu": "gelu", **APPROXIMATE_GELU},
        tied=True,
    ),
    gguf=GgufReading(
        "starcoder",
        half_split=True,
        params=gpt2.gguf_params_with_positions,
        names=gpt2.GGUF_NAMES,
        fused=GgufMetadata.fused_attention,
        biased=True,
    ),
)
