"""What a config.json leaves out is what transformers' configuration class has for it."""

import dataclasses
import json

import pytest
import torch
from tests.support.models.families import GEMMA, LLAMA4, MINISTRAL3_ROPE
from tests.support.models.multimodal import multimodal_model
from tests.support.models.peers import (
    TINY,
    TOLERANCE,
    backbone_of,
    change_config,
    exact_logits,
    parity_error,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
)
from transformers import (
    AutoConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
)

from quatrain.checkpoint.families import FAMILIES
from quatrain.checkpoint.hugging_face.config import params_of_config
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError

# Stated by every config.json that is not the part of another.
SIZES = {"hidden_size", "intermediate_size", "num_hidden_layers"}
GPT_J = {
    "hidden_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16,
    "max_position_embeddings": 2048,
}  # fmt: skip
# What must be stated of a model_type without which its class computes nothing.
DENSE = {
    "lfm2_moe": {"layer_types": ["conv"] * 32},
    "hunyuan_v1_moe": {"num_experts": 2},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "deepseek_v3": {"n_group": 1, "topk_group": 1},
    "gptj": GPT_J,
    "codegen": GPT_J,
    "gpt2": GPT_J,
    "gpt_bigcode": GPT_J,
    "gpt_neo": GPT_J | {"attention_types": [[["global", "local"], 14]]},
    "opt": {"intermediate_size": 3072},
    "mamba2": {"max_position_embeddings": 2048},
    "nemotron_h": {"layers_block_type": ["full_attention", "mlp"]},
    "deepseek_ocr2_text": {"num_experts_per_tok": 6, "mlp_layer_types": ["sparse"] * 32},
}
GEMMA3_THETA = {"rope_theta": "global", "rope_local_base_freq": "local"}


class Recorded(Fields):
    """Fields of a config.json, and which of them were asked for."""

    def __init__(self, fields):
        super().__init__(fields, "config.json")
        self.asked = set()

    def get(self, name, default=None):
        self.asked.add(name)
        return super().get(name, default)

    def __or__(self, other):  # what is asked of the two together is asked of both
        together = Recorded(dict(self) | dict(other))
        together.asked = self.asked
        return together


def class_default(kind, name):
    if name in GEMMA3_THETA:
        theta = kind.default_theta
        return theta.get(GEMMA3_THETA[name]) if isinstance(theta, dict) else theta
    return {field.name: field.default for field in dataclasses.fields(kind)}.get(name)


READINGS = {family.hugging_face.model_type: family.hugging_face for family in FAMILIES}


@pytest.mark.parametrize("model_type", READINGS)
def test_defaults_are_those_of_transformers(model_type):
    family, kind = READINGS[model_type], type(AutoConfig.for_model(model_type))
    assert family.tied is bool(class_default(kind, "tie_word_embeddings"))
    for name, value in {**family.sizes, **family.defaults}.items():
        assert class_default(kind, name) == value, name
    sizes = {name: class_default(kind, name) for name in SIZES}
    dense = DENSE.get(model_type, {})
    fields = Recorded({**sizes, **family.defaults, **dense, "model_type": model_type})
    params_of_config(fields, set())
    stated = {*family.defaults, *dense, *SIZES, "rope_local_base_freq"}
    for name in fields.asked - stated:
        assert class_default(kind, name) in (None, False, model_type), name
    # Other names that its class takes for fields.
    named = {alias: name for alias, name in kind.attribute_map.items() if name in stated}
    assert named.items() <= family.aliases.items()


def error_without(kind, fields, drop, folder, **changed):
    """How far we are off a model whose config.json leaves out the fields `drop`."""
    model = random_model(kind, **fields)
    tokens = random_tokens(30, model.config.vocab_size)
    ours = prefill_then_decode(
        backbone_of(change_config(saved(model, folder), drop, **changed)), tokens, 9
    )
    return relative_error(ours, exact_logits(model, tokens)[:, 8:])


SMOLLM3 = {"num_hidden_layers": 5, "pad_token_id": 0}
LEFT_OUT = {
    "SmolLM3's layers without rotation": ("SmolLM3", SMOLLM3, ["no_rope_layers"], {}),
    "SmolLM3's layers without rotation, null": (
        "SmolLM3", SMOLLM3, ["no_rope_layer_interval"],
        {"no_rope_layers": None},
    ),
    "SmolLM3's frequency base": ("SmolLM3", SMOLLM3, ["rope_parameters"], {}),
    "SmolLM3's sliding layers": (
        "SmolLM3", {**SMOLLM3, "use_sliding_window": True, "sliding_window": 8},
        ["layer_types"], {},
    ),
    "Llama 4's figures": (
        "Llama4", {**LLAMA4, "floor_scale": 8192},
        ["use_qk_norm", "attn_temperature_tuning", "rope_parameters", "floor_scale",
         "attn_scale", "no_rope_layers", "layer_types", "moe_layers"],
        {},
    ),
    "Granite's multipliers": ("Granite", {}, ["logits_scaling", "attention_multiplier"], {}),
    "Qwen 3's sliding layers": (
        "Qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        ["layer_types"], {},
    ),
    "Qwen 2.5's sliding layers, of which there are none": (
        "Qwen2", {"use_sliding_window": True, "sliding_window": 8},
        ["layer_types", "max_window_layers"], {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_equals_transformers(name, tmp_path):
    kind, fields, drop, changed = LEFT_OUT[name]
    assert error_without(kind, fields, drop, tmp_path, **changed) < TOLERANCE


def test_mistral_without_a_window_field_has_the_default(tmp_path):
    folder = saved(random_model("Mistral", sliding_window=None), tmp_path)
    assert open_float_model(folder).config.sliding_window is None
    assert open_float_model(change_config(folder, ["sliding_window"])).config.sliding_window == 4096


def test_gemma3_as_the_hub_has_it(tmp_path):
    """The text part of Gemma 3 4B to 27B states its differences from the class alone."""
    text = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7, "sliding_window": 8,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    }  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2,
              "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}  # fmt: skip
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, min(0.3, parameter.shape[-1] ** -0.5))
    text |= {"model_type": "gemma3_text"}
    folder = change_config(saved(model, tmp_path), text_config=text)
    tokens = random_tokens(24, 200)
    ours = prefill_then_decode(backbone_of(folder), tokens, 9)
    assert relative_error(ours, model(input_ids=tokens).logits[:, 8:]) < TOLERANCE
    assert open_float_model(folder).config.rope_linear_factor == 8.0


def test_ministral3_as_the_hub_has_it(tmp_path):
    """As the text part of a mistral3, whose text model may be a mistral, too."""
    text = {**TINY, "model_type": "ministral3", "head_dim": 16, "rope_parameters": MINISTRAL3_ROPE}
    vision = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 32, "head_dim": 16,
              "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 28,
              "patch_size": 14}  # fmt: skip
    torch.manual_seed(0)
    config = Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    model = Mistral3ForConditionalGeneration(config).eval().requires_grad_(False)
    folder = saved(model, tmp_path)
    tokens = random_tokens(24)
    ours = prefill_then_decode(backbone_of(folder), tokens, 9)
    assert relative_error(ours, model(input_ids=tokens).logits[:, 8:]) < TOLERANCE
    change_config(folder, text_config={**text, "model_type": None})
    with pytest.raises(InputError, match=r"has llama_4_scaling_beta, .*'ministral3'"):
        open_float_model(folder)


def test_a_mistral3_whose_text_model_is_not_named_is_a_mistral(tmp_path):
    folder = saved(multimodal_model("mistral3", TINY | {"model_type": "mistral"}), tmp_path)
    expected = open_float_model(folder)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    del text["model_type"]
    change_config(folder, text_config=text)
    assert AutoConfig.from_pretrained(folder).text_config.model_type == "mistral"
    assert open_float_model(folder).params == expected.params


@pytest.mark.parametrize("kind", ["Mistral", "Qwen2", "Gemma3"])
def test_a_window_as_long_as_the_trained_context_stays(kind, tmp_path):
    """A program for a longer context needs it."""
    fields = {"use_sliding_window": True, "max_window_layers": 0} if kind == "Qwen2" else {}
    fields |= GEMMA if kind == "Gemma3" else {}
    model = random_model(kind, **{**fields, "sliding_window": TINY["max_position_embeddings"]})
    tokens = random_tokens(90)
    backbone = backbone_of(saved(model, tmp_path), max_seq_len=100)
    ours = prefill_then_decode(backbone, tokens, 17)
    assert relative_error(ours, exact_logits(model, tokens)[:, 16:]) < 2 * TOLERANCE


@pytest.mark.parametrize("stated", [False, None])
def test_an_output_layer_that_is_missing(stated, tmp_path):
    folder = saved(random_model("Llama", tie_word_embeddings=True), tmp_path)
    drop = ["tie_word_embeddings"] if stated is None else []
    change_config(folder, drop, **({} if stated is None else {"tie_word_embeddings": stated}))
    with pytest.raises(InputError, match=r"lm_head\.weight is missing.*not tied"):
        open_float_model(folder)


def test_tied_by_default(tmp_path):
    model = random_model("Gemma2", **GEMMA, tie_word_embeddings=True)
    model.set_attn_implementation("eager")
    assert parity_error(model, tmp_path) < TOLERANCE
    change_config(tmp_path, ["tie_word_embeddings"])
    assert "output.weight" not in open_float_model(tmp_path).tensors
