"""The text model of Cosmos 3 Edge: a Llama whose feed-forward has no gate, with a rotary embedding
by three positions, which are equal for text. Files may hold beside it what makes videos."""

import re

from quatrain.checkpoint.families import qwen
from quatrain.checkpoint.families.family import Biases, Family, HuggingFaceReading, sizes
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params

_GENERATES = re.compile(
    r"(?:action_|time_embedder|proj_in|proj_out|norm_moe_gen).*|model\.layers\.\d+\."
    r"(?:\w+_moe_gen|self_attn\.(?:add_[qkv]_proj|to_add_out|norm_added_[qk]|k_norm_und_for_gen))\..+"
)


def _generates(stored: LazyTensors, fields: Fields) -> set[str]:
    return {name for name in stored if _GENERATES.fullmatch(name)}


COSMOS3_EDGE = Family(
    HuggingFaceReading(
        model_type="cosmos3_edge_text",
        defaults={
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 131072,
            "hidden_act": "relu2",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000000.0,
        },
        sizes=sizes(2048, 9216, 28),
        params=lambda fields: {"feed_forward_gate": False},
        rope=lambda fields: rope_params(qwen.of_one_position(fields)),
        names={"mlp.fc1": "feed_forward.w1", "mlp.fc2": "feed_forward.w2"},
        on_hub={
            ".self_attn.to_q.": ".self_attn.q_proj.",
            ".self_attn.to_k.": ".self_attn.k_proj.",
            ".self_attn.to_v.": ".self_attn.v_proj.",
            ".self_attn.to_out.": ".self_attn.o_proj.",
            ".mlp.up_proj.": ".mlp.fc1.",
            ".mlp.down_proj.": ".mlp.fc2.",
        },
        unused=_generates,
        activations={"relu2": "relu2"},
        biases=Biases("attention_bias", "attention_bias", "mlp_bias"),
    )
)
