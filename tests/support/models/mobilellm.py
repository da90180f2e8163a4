"""MobileLLM, which transformers has no class for: its fields, on transformers' Llama."""

from huggingface_hub.dataclasses import strict
from tests.support.models.register_classes import register_classes
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel


@strict
class MobileLLMConfig(LlamaConfig):
    model_type = "mobilellm"

    share_embedding: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.share_embedding

    def to_dict(self):
        """As the files have it, which state both."""
        return super().to_dict() | {"tie_word_embeddings": False, "layer_sharing": False}


class MobileLLMModel(LlamaModel):
    config_class = MobileLLMConfig


class MobileLLMForCausalLM(LlamaForCausalLM):
    config_class = MobileLLMConfig


register_classes(MobileLLMConfig, MobileLLMModel, MobileLLMForCausalLM)
