"""Which linears have a bias is what config.json says, as in transformers."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.models.families import ROWS
from tests.support.models.multimodal import multimodal_model
from tests.support.models.peers import TINY, change_config, config_class, random_model, saved
from transformers import MODEL_MAPPING, AutoModel

from quatrain.checkpoint.families import hugging_face_reading
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.biases import has_bias
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError

FLAGS = (
    "attention_bias", "enable_bias", "attention_out_bias", "use_bias", "use_qkv_bias", "qkv_bias",
    "mlp_bias",
)  # fmt: skip
PARTS = {
    "qkv": ("q_proj.bias", "qkv_proj.bias", "query_key_value.bias", "c_attn.bias"),
    "wo": (
        "o_proj.bias",
        "self_attn.out_proj.bias",
        "self_attn.dense.bias",
        "attention.dense.bias",
        "attn.c_proj.bias",
        "attention.out_proj.bias",
    ),
    "feed_forward": (
        "mlp.down_proj.bias",
        "mlp.c_proj.bias",
        "mlp.dense_4h_to_h.bias",
        "mlp.fc_out.bias",
        "mlp.fc2.bias",
        ".fc2.bias",
        "feed_forward.w2.bias",
    ),
}
DENSE = ("mlp.down_proj", "mlp.c_proj", "mlp.fc2", "mlp.dense_4h_to_h", "mlp.fc_out", ".fc2")
KINDS = {row.model_type: row for row in ROWS.values()}
# Whose attention_bias is refused.
GATED = (
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "minicpm3",
    "youtu",
    "deepseek_v2",
    "deepseek_v3",
)


def text_model(kind, config):
    if type(config) in MODEL_MAPPING:
        return AutoModel.from_config(config)
    whole = getattr(transformers, f"{kind}Config").model_type
    return multimodal_model(whole, config.to_dict()).model.language_model


@pytest.mark.parametrize("model_type", KINDS)
def test_families_have_the_biases_of_transformers(model_type):
    row = KINDS[model_type]
    for stated in (None, False, True):
        if stated and model_type in GATED:
            continue
        fields = {**TINY, **row.fields}
        said = {name: stated for name in FLAGS if stated is not None}
        config = config_class(row.kind)(**{**fields, **said})
        with torch.device("meta"):
            names = list(text_model(row.kind, config).state_dict())
        reading = hugging_face_reading(Fields({"model_type": model_type}, "config.json"))
        known = Fields({**reading.defaults, **row.fields, **said}, "config.json")
        for part, ends in PARTS.items():
            theirs = any(name.endswith(ends) for name in names)
            ours = has_bias(part, known, reading)
            dense = any(part in name for name in names for part in DENSE)
            experts = part == "feed_forward" and not dense
            assert ours == theirs or experts, (part, stated)


def llama(folder, **fields):
    return saved(random_model("Llama", attention_bias=True, mlp_bias=True), folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_bias": False}, r"self_attn\.\w+\.bias, but attention_bias is false"),
        ({"mlp_bias": False}, r"mlp\.\w+\.bias, but mlp_bias is false.*state mlp_bias: true"),
        (
            {"model_type": "mistral"},
            r"_proj\.bias, but models of this model_type have no such bias",
        ),
        ({"model_type": "qwen2"}, r"\.bias, but models of this model_type have no such bias"),
    ],
)
def test_biases_that_config_json_denies(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        open_float_model(change_config(llama(tmp_path), **fields))


def test_biases_that_are_missing(tmp_path):
    saved(random_model("Mistral"), tmp_path)
    for fields in ({"model_type": "qwen2"}, {"model_type": "llama", "attention_bias": True}):
        with pytest.raises(InputError, match=r"q_proj\.bias.*are missing"):
            open_float_model(change_config(tmp_path, **fields))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_biases_that_autogptq_writes_for_each_linear(tmp_path, value):
    """Of 0, in Llamas that have none."""
    folder = folders.write_quantized(tmp_path, "gptq")
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(".qweight")]:
        rows = tensors[name].shape[1]
        tensors[name.replace("qweight", "bias")] = torch.full((rows,), value)
    save_file(tensors, folder / "model.safetensors")
    if value:
        with pytest.raises(InputError, match=r"_proj\.bias, but \w+_bias is false"):
            open_checkpoint(folder)
        return
    assert not any(name.endswith(".bias") for name in open_checkpoint(folder).tensors)


@pytest.mark.parametrize("stated", ["attention_bias", "mlp_bias"])
def test_a_field_that_tells_of_biases_that_no_file_has(tmp_path, stated):
    """transformers would begin with biases of 0, to be trained."""
    change_config(saved(random_model("Llama"), tmp_path), **{stated: True})
    message = rf"the field '{stated}' is True, expected .*_proj\.bias, .* missing; set it to fals"
    with pytest.raises(InputError, match=message):
        open_float_model(tmp_path)
