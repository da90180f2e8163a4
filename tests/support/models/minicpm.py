"""MiniCPM, which transformers has no class for: its fields, on transformers' Granite.

Defaults are those of `configuration_minicpm.py`, which comes with the models."""

from huggingface_hub.dataclasses import strict
from tests.support.models.register_classes import register_classes
from transformers import GraniteConfig, GraniteForCausalLM, GraniteModel


@strict
class MiniCPMConfig(GraniteConfig):
    model_type = "minicpm"

    tie_word_embeddings: bool = True
    scale_emb: float | int = 1
    scale_depth: float | int = 1
    dim_model_base: float | int = 1

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.embedding_multiplier = self.scale_emb
        self.residual_multiplier = self.scale_depth / self.num_hidden_layers**0.5
        self.logits_scaling = self.hidden_size / self.dim_model_base
        self.mlp_bias = False
        self.attention_multiplier = (self.hidden_size // self.num_attention_heads) ** -0.5

    def to_dict(self):
        return {name: value for name, value in super().to_dict().items() if name not in _GRANITES}


_GRANITES = (
    "embedding_multiplier",
    "residual_multiplier",
    "logits_scaling",
    "attention_multiplier",
    "mlp_bias",
)


class MiniCPMModel(GraniteModel):
    config_class = MiniCPMConfig


class MiniCPMForCausalLM(GraniteForCausalLM):
    config_class = MiniCPMConfig


register_classes(MiniCPMConfig, MiniCPMModel, MiniCPMForCausalLM)
