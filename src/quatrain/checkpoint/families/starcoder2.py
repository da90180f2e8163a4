"""StarCoder2: layer norms with bias, bias on every linear, a feed-forward without a gate."""

from quatrain.checkpoint.families.family import Biases, Family, GgufReading, HuggingFaceReading
from quatrain.checkpoint.hugging_face.layer_types import window_of_all

_UNLIKE_LLAMA = {"norm_type": "layer", "norm_bias": True, "feed_forward_gate": False}

STARCODER2 = Family(
    hugging_face=HuggingFaceReading(
        model_type="starcoder2",
        biases=Biases("use_bias", "use_bias", "use_bias"),
        defaults={
            "num_attention_heads": 24,
            "num_key_value_heads": 2,
            "vocab_size": 49152,
            "hidden_act": "gelu_pytorch_tanh",
            "max_position_embeddings": 4096,
            "norm_epsilon": 1e-5,
            "rope_theta": 10000.0,
            "use_bias": True,
        },
        params=lambda fields: _UNLIKE_LLAMA | window_of_all(fields),
        names={"mlp.c_fc": "feed_forward.w1", "mlp.c_proj": "feed_forward.w2"},
        activations={"gelu_pytorch_tanh": "gelu_approx"},
        tied=True,
    ),
    # Of its window a file says nothing.
    gguf=GgufReading(
        "starcoder2",
        half_split=True,
        params=lambda metadata: _UNLIKE_LLAMA | {"act_fn": "gelu_approx"},
        names={"ffn_up": "feed_forward.w1"},
        biased=True,
    ),
)
