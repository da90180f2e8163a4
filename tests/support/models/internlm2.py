"""InternLM2, which transformers has no class for: its files and fields, on transformers' Llama.

Defaults are those of `configuration_internlm2.py`, which comes with the models."""

from pathlib import Path

import torch
from huggingface_hub.dataclasses import strict
from safetensors.torch import load_file, save_file
from tests.support.models.register_classes import register_classes
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

_NAMES = {
    "model.embed_tokens": "model.tok_embeddings",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "lm_head": "output",
}


@strict
class InternLM2Config(LlamaConfig):
    model_type = "internlm2"

    vocab_size: int = 103168
    bias: bool = True
    attention_bias: bool = True

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.attention_bias &= self.bias
        self.mlp_bias = False

    def to_dict(self):
        unstated = ("attention_bias", "mlp_bias", "head_dim")
        return {name: value for name, value in super().to_dict().items() if name not in unstated}


class InternLM2Model(LlamaModel):
    config_class = InternLM2Config


class InternLM2ForCausalLM(LlamaForCausalLM):
    config_class = InternLM2Config

    def save_pretrained(self, folder, save_original_format=True, **options):
        """As the hub has it, or by the names of Llama."""
        super().save_pretrained(folder, **options)
        if save_original_format:
            file = Path(folder) / "model.safetensors"
            save_file(as_on_the_hub(load_file(file), self.config), file, {"format": "pt"})


def as_on_the_hub(
    tensors: dict[str, torch.Tensor], config: InternLM2Config
) -> dict[str, torch.Tensor]:
    """`tensors` by InternLM2's names, the queries of each head of keys before that, and its values
    behind it, in one matrix."""
    width = config.hidden_size // config.num_attention_heads
    own = {}
    for name, tensor in tensors.items():
        module, is_query, kind = name.partition("self_attn.q_proj.")
        if is_query:
            parts = [tensors[f"{module}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            heads = [part.unflatten(0, (config.num_key_value_heads, -1)) for part in parts]
            assert heads[1].shape[1] == width
            own[f"{module}attention.wqkv.{kind}"] = torch.cat(heads, 1).flatten(0, 1)
        elif ".k_proj." not in name and ".v_proj." not in name:
            for part, called in _NAMES.items():
                name = name.replace(part, called)
            own[name] = tensor
    return own


register_classes(InternLM2Config, InternLM2Model, InternLM2ForCausalLM)
