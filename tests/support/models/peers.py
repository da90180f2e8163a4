"""Tiny random models of transformers, saved as their own writers do, and how far we are off."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import torch
import transformers
from tests.support.models import internlm2, minicpm, mobilellm
from tests.support.models.multimodal import multimodal_model
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.open import open_float_model
from quatrain.quantize.pipeline import quantize_model

TOLERANCE = 1e-5
TINY = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}  # fmt: skip


def config_class(kind: str) -> type[transformers.PreTrainedConfig]:
    """The configuration of `{kind}ForCausalLM`: of models that also see, the text model's own."""
    if hasattr(transformers, f"{kind}TextConfig"):
        return getattr(transformers, f"{kind}TextConfig")
    own = getattr(_home(kind), f"{kind}Config")
    return type(own().text_config) if "text_config" in own.sub_configs_defaults else own


def _home(kind: str) -> ModuleType:
    """Where the classes of `kind` are."""
    own = {"MiniCPM": minicpm, "InternLM2": internlm2, "MobileLLM": mobilellm}
    return own.get(kind, transformers)


def random_model(kind: str, seed: int = 0, **fields) -> transformers.PreTrainedModel:
    """A model of `{kind}ForCausalLM` with random weights, norms and biases included; of those that
    have none, of the whole whose text model it is."""
    torch.manual_seed(seed)
    config = config_class(kind)(**{**TINY, **fields})
    if hasattr(_home(kind), f"{kind}ForCausalLM"):
        return with_random_weights(getattr(_home(kind), f"{kind}ForCausalLM")(config))
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:  # another family's class
        return with_random_weights(transformers.AutoModelForCausalLM.from_config(config))
    whole = getattr(transformers, f"{kind}Config").model_type
    tied = {"tie_word_embeddings": config.tie_word_embeddings}
    return with_random_weights(multimodal_model(whole, config.to_dict(), **tied))


def with_random_weights(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    for parameter in model.parameters():
        # Far enough from the usual 0 and 1 that a weight left out or misplaced shows.
        spread = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, spread)
    for name, buffer in model.named_buffers():
        if name.endswith(("layer_scalar", "expert_bias", "correction_bias")):
            torch.nn.init.normal_(buffer, 1.0, 0.3)
    return model.eval().requires_grad_(False)


def exact_logits(model: transformers.PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """`model`'s logits [1, T, vocab_size] in float64, so that what differs is our rounding alone:
    that of transformers in float32 is as large, and on some processors three times as large."""
    exact = copy.deepcopy(model).double()
    exact.set_experts_implementation("eager")  # the others take no float64
    return exact(tokens).logits


def saved(model: transformers.PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def int4_checkpoint(model: transformers.PreTrainedModel, folder: Path) -> Path:
    """The int4 checkpoint of `model`, its embedding too, rounded to nearest."""
    saved(model, folder / "model")
    quantize_model(folder / "model", folder / "int4", embedding="int4", method="rtn")
    return folder / "int4"


def change_config(folder: Path, drop: Iterable[str] = (), **fields) -> Path:
    """Drop fields of config.json and replace others."""
    config = json.loads((folder / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in drop} | fields
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def backbone_of(folder: Path, **options) -> Backbone:
    opened = open_float_model(folder)
    return build_backbone(opened.config, opened.tensors, **options)


def random_tokens(length: int, vocab_size: int = 96) -> torch.Tensor:
    return torch.randint(vocab_size, (1, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def prefill_then_decode(backbone: Backbone, inputs: torch.Tensor, prefill: int) -> torch.Tensor:
    """What `backbone` gives for each call: the first `prefill` tokens at once, then one by one.

    Logits [1, 1 + rest, vocab_size], or hidden states of all tokens [1, T, dim].
    """
    backbone.reset()
    results = [backbone(inputs[:, :prefill], torch.tensor([0]))]
    for position in range(prefill, inputs.shape[1]):
        step = inputs[:, position : position + 1]
        results.append(backbone(step, torch.tensor([position])))
    return torch.cat(results, dim=1) if backbone.output is None else torch.stack(results, dim=1)


def parity_error(model: transformers.PreTrainedModel, folder: Path, length: int = 24) -> float:
    """The largest relative error of logits, from tokens: of prefills and of each decode step."""
    tokens = random_tokens(length, model.config.get_text_config().vocab_size)
    theirs = exact_logits(model, tokens)
    backbone = backbone_of(saved(model, folder))
    return max(
        relative_error(prefill_then_decode(backbone, tokens, prefill), theirs[:, prefill - 1 :])
        for prefill in (1, length // 2, length)
    )
