"""Makes classes of our own known to transformers, for models whose classes come with their
files."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)


def register_classes(
    config: type[PretrainedConfig],
    model: type[PreTrainedModel],
    with_head: type[PreTrainedModel],
) -> None:
    """So that `AutoModelForCausalLM` and the others find them by the `model_type` of `config`."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoModelForCausalLM.register(config, with_head, exist_ok=True)
