"""The text models inside models that see or hear, of either spelling of their tensors' names."""

import dataclasses
import json
import re
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.families import (
    DEEPSEEK_OCR2,
    GEMMA3N,
    GEMMA4,
    GEMMA4_LARGER,
    HUNYUAN_VL_ROPE,
    LFM2,
    LFM3,
    LLAMA4,
    MINISTRAL3_ROPE,
    MROPE,
    QWEN3_5,
    QWEN3_5_MOE,
)
from tests.support.models.multimodal import multimodal_model
from tests.support.models.peers import (
    TINY,
    TOLERANCE,
    backbone_of,
    change_config,
    exact_logits,
    prefill_then_decode,
    random_model,
    random_tokens,
    relative_error,
    saved,
    with_random_weights,
)
from tests.support.thorough import thorough
from transformers import (
    AutoConfig,
    GenerationConfig,
    Phi4MultimodalConfig,
    Phi4MultimodalForCausalLM,
)

from quatrain.checkpoint.families.multimodal import MULTIMODAL, WITH_OWN_CODE
from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError

WINDOWS = {"sliding_window": 8, "num_hidden_layers": 4}
# Of the text models, those fields that are not TINY's.
TEXTS = {
    "cohere2": WINDOWS | {"head_dim": 16, "logit_scale": 0.5},
    "cosmos3_edge_text": {"head_dim": 16, "rope_parameters": MROPE},
    "deepseek_ocr2_text": DEEPSEEK_OCR2,
    "exaone4": WINDOWS,
    "gemma4_text": GEMMA4,
    "gemma4_unified_text": GEMMA4_LARGER,
    "gemma3_text": WINDOWS | {"head_dim": 16, "query_pre_attn_scalar": 16},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0},
    "granite4_vision_text": {"logits_scaling": 4.0, "embedding_multiplier": 3.0},
    "granite_docling_text": {"pad_token_id": 0},
    "hunyuan_vl_text": {"head_dim": 16, "rope_parameters": HUNYUAN_VL_ROPE},
    "hyperclovax": {"logits_scaling": 2.0, "use_post_norm": True},
    "lfm2": LFM2 | {"tie_word_embeddings": False},
    "lfm3": LFM3 | {"tie_word_embeddings": False},
    "llama4_text": LLAMA4,
    "ministral3": {"head_dim": 16, "rope_parameters": MINISTRAL3_ROPE},
    "mistral": {"sliding_window": 8},
    "paddleocr_vl_text": {"head_dim": 16, "rope_parameters": MROPE},
    "glm4v_text": {
        "rope_parameters": MROPE | {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
    },
    "glm_ocr_text": {"rope_parameters": MROPE},
    "qwen2_5_omni_text": {"rope_parameters": MROPE},
    "qwen2_vl_text": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
    "qwen2_5_vl_text": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
    "qwen3": {"head_dim": 16},
    "qwen3_5_text": QWEN3_5,
    "qwen3_5_moe_text": QWEN3_5_MOE,
    "qwen3_vl_text": {"head_dim": 16},
}
WHOLE = {
    "gemma4": {
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
            "position_embedding_size": 16, "patch_size": 4,
        }
    },
    "fun_asr_nano": {"adaptor_config": {"hidden_size": 64, "intermediate_size": 16}},
    "ovis2": {"vocab_size": 96, "hidden_size": 64},
}  # fmt: skip
# transformers' class of the whole leaves out what its text model divides logits by.
LOGITS = {
    "aya_vision": 0.5,
    "cohere2_vision": 0.5,
    "granite_speech": 1 / 4,
    "granite_speech_plus": 1 / 4,
}
# Whose modules beside the text model are called otherwise on the hub, some of them in one tensor.
NAMED_OTHERWISE = ("deepseek_ocr2", "hunyuan_vl", "paddleocr_vl", "qianfan_ocr")
USUAL = ("granite_speech", "idefics3", "internvl", "llama4", "llava", "llava_next",
         "mistral3", "qwen2_audio", "voxtral", "cohere2_vision", "lfm2_vl")  # fmt: skip
# What tests/support/models/families.py compares already, or has its tensors named as one of USUAL.
# transformers makes no vision tower of some without timm: see test_gemma_3n_as_the_hub_has_it and
# test_it_is_a_llava.
LLAVAS = ("fast_vlm", "perception_lm")
OF_OTHER_CLASSES = ("gemma3n", "phi4_multimodal", "qwen2_5_omni")
OTHERS = sorted(MULTIMODAL.keys() - {*USUAL, *LLAVAS, *OF_OTHER_CLASSES})


def text_of(model_type, text_type=None, **fields):
    text_type = text_type or MULTIMODAL[model_type].text
    return {**TINY, "model_type": text_type, **TEXTS.get(text_type, {}), **fields}


def tiny(model_type, text_type=None, **fields):
    tied = {"tie_word_embeddings": fields.get("tie_word_embeddings", False)}
    text = text_of(model_type, text_type, **fields)
    torch.manual_seed(0)
    whole = WHOLE.get(model_type, {})
    model = with_random_weights(multimodal_model(model_type, text, **tied, **whole))
    model.set_attn_implementation("eager")
    return model


def error(model, folder):
    tokens = random_tokens(14)
    # Llama 4's whole class fails on text alone in transformers 5.24.
    writes = model.language_model if model.config.model_type == "llama4" else model
    theirs = exact_logits(writes, tokens) * LOGITS.get(model.config.model_type, 1.0)
    return relative_error(prefill_then_decode(backbone_of(folder), tokens, 9), theirs[:, 8:])


def unused(note):
    """(the note without the modules, those by transformers' names)."""
    said, _, modules = note.replace("vision_projector", "projector").partition(". Not used: ")
    return said, sorted(re.findall(r"\w+ \([^)]*\)", modules))


@pytest.mark.parametrize("model_type", [*USUAL, *thorough(OTHERS)])
def test_the_text_model_equals_transformers(model_type, tmp_path):
    model = tiny(model_type)
    folder = saved(model, tmp_path / "hub")
    assert error(model, folder) < TOLERANCE
    opened = open_float_model(folder)
    (note,) = opened.notes
    model.save_pretrained(tmp_path / "new", save_original_format=False)
    renamed = open_float_model(tmp_path / "new")
    (new,) = renamed.notes
    inner = model if model_type == "llama4" else model.model
    modules = {name.partition(".")[0] for name, _ in inner.named_parameters()}
    others = modules - {"language_model", "text_model"}
    assert others <= set(MULTIMODAL[model_type].others)
    assert f"model_type is {model_type}, " in new and all(f"{other} (" in new for other in others)
    assert renamed.params == opened.params
    same = slice(1 if model_type in NAMED_OTHERWISE else None)
    assert unused(new)[same] == unused(note)[same]
    assert set(renamed.tensors) == set(opened.tensors)
    assert all(torch.equal(renamed.tensors[name], opened.tensors[name]) for name in opened.tensors)


@pytest.mark.parametrize("model_type", MULTIMODAL)
def test_what_is_known_of_it_is_what_transformers_has(model_type):
    known = MULTIMODAL[model_type]
    kind: Any = type(AutoConfig.for_model(model_type))
    if known.inside:
        kind = type(getattr(kind(), f"{known.inside}_config"))
    default = {field.name: field.default for field in dataclasses.fields(kind)}
    assert known.tied is bool(default.get("tie_word_embeddings"))
    if "text_config" in kind.sub_configs_defaults:
        assert known.text == kind().text_config.model_type
    for name, value in known.defaults.items():
        text = kind(text_config={"model_type": known.text}).text_config
        found = text.rope_parameters if name == "rope_theta" else {name: getattr(text, name)}
        assert found[name] == value, name


@pytest.mark.parametrize("text_type", ["mistral", "qwen2"])
def test_a_llava_of_another_text_model(text_type, tmp_path):
    model = tiny("llava_next", text_type)
    assert error(model, saved(model, tmp_path)) < TOLERANCE


@pytest.mark.parametrize("model_type", LLAVAS)
def test_it_is_a_llava(model_type, tmp_path):
    model = tiny("llava", MULTIMODAL[model_type].text)
    folder = change_config(saved(model, tmp_path), model_type=model_type)
    assert error(model, folder) < TOLERANCE


@pytest.mark.parametrize("model_type", ["smolvlm", "qwen2_vl"])
def test_an_output_layer_that_is_tied(model_type, tmp_path):
    model = tiny(model_type, tie_word_embeddings=True)
    assert error(model, saved(model, tmp_path)) < TOLERANCE
    assert "output.weight" not in open_float_model(tmp_path).tensors


def test_gemma_3n_as_the_hub_has_it(tmp_path):
    """Its text model by itself, named as a part of the whole, beside what sees and hears."""
    model = random_model("Gemma3n", **GEMMA3N)
    tensors = load_file(saved(model, tmp_path) / "model.safetensors")
    others = ("vision_tower.timm_model.conv", "embed_vision.embedding", "audio_tower.conformer.0",
              "embed_audio.embedding")  # fmt: skip
    whole = {name.replace("model.", "model.language_model.", 1): tensors[name] for name in tensors}
    whole |= {f"model.{name}.weight": torch.zeros(2, 2) for name in others}
    save_file(whole, tmp_path / "model.safetensors")
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma3n", "text_config": text})
    )
    tokens = random_tokens(14)
    ours = prefill_then_decode(backbone_of(tmp_path), tokens, 9)
    assert relative_error(ours, exact_logits(model, tokens)[:, 8:]) < TOLERANCE
    (note,) = open_float_model(tmp_path).notes
    assert all(f"{name.partition('.')[0]} (" in note for name in others)


def test_a_model_of_several_models(tmp_path):
    """Qwen 2.5 Omni: what thinks is a model that sees and hears; another one talks."""
    model = tiny("qwen2_5_omni_thinker")
    file = saved(model, tmp_path) / "model.safetensors"
    tensors = {f"thinker.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(tensors | {"talker.model.norm.weight": torch.ones(2)}, file)
    config = {"model_type": "qwen2_5_omni", "eos_token_id": 7}
    thinker = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"thinker_config": thinker}))
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    assert error(model, tmp_path) < TOLERANCE
    opened = open_float_model(tmp_path)
    assert opened.params["eos_idx"] == 7
    (note,) = opened.notes
    assert all(f"{part} (" in note for part in ("visual", "audio_tower", "talker"))
    change_config(tmp_path, ["thinker_config"])
    with pytest.raises(InputError, match="'thinker_config' is None, expected an object"):
        open_float_model(tmp_path)


def test_phi_4_multimodal(tmp_path):
    """A Phi 4 mini with more in its model, whose config.json has no text_config."""
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "crop_size": 28}  # fmt: skip
    audio = {"hidden_size": 32, "intermediate_size": 32, "num_blocks": 1, "num_attention_heads": 2,
             "ext_pw_out_channel": 32, "nemo_conv_channels": 32}  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    torch.manual_seed(0)
    config = Phi4MultimodalConfig(
        **TINY, pad_token_id=0, vision_config=vision, audio_config=audio, rope_parameters=rope
    )
    model = with_random_weights(Phi4MultimodalForCausalLM(config))
    assert error(model, saved(model, tmp_path)) < TOLERANCE
    (note,) = open_float_model(tmp_path).notes
    assert "only its text model (phi3) is read. Not used: embed_tokens_extend (" in note


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3"])
def test_internvl_with_its_own_code(kind, tmp_path):
    """Which calls the text model's fields llm_config."""
    model = random_model(kind, **TEXTS.get(kind.lower(), {}))
    tensors = load_file(saved(model, tmp_path) / "model.safetensors")
    whole = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    others = {f"{name}.weight": torch.ones(2, 2) for name in ("vision_model.embeddings", "mlp1.0")}
    save_file(whole | others, tmp_path / "model.safetensors")
    text = json.loads((tmp_path / "config.json").read_text())
    config = {"model_type": "internvl_chat", "llm_config": text, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert error(model, tmp_path) < TOLERANCE
    (note,) = open_float_model(tmp_path).notes
    assert f"({kind.lower()}) is read. Not used: mlp1 (1 tensor" in note and "vision_model" in note
    change_config(tmp_path, ["llm_config"])
    with pytest.raises(InputError, match="'llm_config' is None, expected an object"):
        open_float_model(tmp_path)


@pytest.mark.parametrize("model_type", ["llava", *sorted(WITH_OWN_CODE)[1:]])
def test_others_with_their_own_code(model_type, tmp_path):
    """FastVLM, MobileVLM, Phi 3 Vision: the text model's fields and tensors, and more beside."""
    known = (MULTIMODAL | WITH_OWN_CODE)[model_type]
    model = random_model(known.text.capitalize(), pad_token_id=0)
    file = saved(model, tmp_path) / "model.safetensors"
    others = {f"model.{name}.0.weight": torch.ones(2) for name in known.others}
    save_file(load_file(file) | others, file)
    change_config(tmp_path, model_type=model_type, mm_vision_tower="mobileclip_l_1024")
    assert error(model, tmp_path) < TOLERANCE
    (note,) = open_float_model(tmp_path).notes
    assert f"({known.text}) is read" in note and all(f"{name} (" in note for name in known.others)


def test_qwen2_vl_as_the_hub_has_it(tmp_path):
    """Its text model's fields beside the others, and M-RoPE as the type of the rotation."""
    model = tiny("qwen2_vl")
    text = text_of("qwen2_vl") | {"model_type": "qwen2_vl", "rope_theta": 1000000.0}
    del text["rope_parameters"]
    rope = {"type": "mrope", "mrope_section": [2, 3, 3]}
    change_config(saved(model, tmp_path), ["text_config"], **text, rope_scaling=rope)
    assert error(model, tmp_path) < TOLERANCE


FLAT = {
    "hunyuan_vl": {"attention_head_dim": 16, "rope_theta": 10000.0, "rope_scaling": {
        "type": "xdrope", "alpha": 20.0, "factor": 1.0, "xdrope_section": [2, 2, 2, 2],
        "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "paddleocr_vl": {"head_dim": 16, "rope_theta": 10000.0, "rope_scaling": {
        "type": "default", "rope_type": "default", "mrope_section": [2, 3, 3]}},
}  # fmt: skip


@pytest.mark.parametrize("model_type", FLAT)
def test_fields_of_the_text_model_beside_the_others(model_type, tmp_path):
    """As the hub has them."""
    model = tiny(model_type)
    saved(model, tmp_path)
    change_config(tmp_path, ["text_config"], **TINY, **FLAT[model_type])
    theirs = AutoConfig.from_pretrained(tmp_path).text_config.to_dict()
    stated = model.config.text_config.rope_parameters
    assert stated.items() <= theirs["rope_parameters"].items()
    assert error(model, tmp_path) < TOLERANCE


def test_glm_ocr_with_a_layer_that_predicts_further(tmp_path):
    file = saved(tiny("glm_ocr"), tmp_path) / "model.safetensors"
    tensors, layer = load_file(file), "model.language_model.layers.3.eh_proj.weight"
    save_file(tensors | {layer: torch.ones(2, 2)}, file)
    with pytest.raises(InputError, match=r"layers\.3\.eh_proj\.weight is not known"):
        open_float_model(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    change_config(tmp_path, text_config=text | {"num_nextn_predict_layers": 1})
    assert layer.replace("language_model.", "") in open_float_model(tmp_path).notes[1]


def test_cosmos_3_edge_with_what_makes_videos(tmp_path):
    file = saved(tiny("cosmos3_edge"), tmp_path) / "model.safetensors"
    others = ("time_embedder.linear.weight", "layers.0.mlp_moe_gen.up_proj.weight",
              "layers.0.self_attn.add_q_proj.weight")  # fmt: skip
    save_file(load_file(file) | {name: torch.ones(2, 2) for name in others}, file)
    assert all(name in open_float_model(tmp_path).notes[1] for name in others)


def test_a_text_model_by_the_name_that_its_first_files_have(tmp_path):
    folder = saved(tiny("exaone4_5"), tmp_path)
    expected = open_float_model(folder).params
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_config(folder, text_config=text | {"model_type": "exaone4_5_text"})
    assert AutoConfig.from_pretrained(folder).text_config.model_type == "exaone4"
    assert open_float_model(folder).params == expected


def test_what_the_whole_says_is_not_the_text_models(tmp_path):
    """A PaliGemma states hidden_size and vocab_size of its own, a LLaVA's text model may leave out
    what is its class's default."""
    folder = change_config(saved(tiny("llava"), tmp_path), hidden_size=999, rope_theta=3.0)
    assert (open_float_model(folder).config.dim, open_float_model(folder).config.rope_theta) == (
        64,
        10000.0,
    )


@pytest.mark.parametrize("whole", [[2, 7], None])
def test_the_tokens_that_end_a_text_are_those_of_the_whole_where_it_states_them(whole, tmp_path):
    model = multimodal_model("llava", {**TINY, "model_type": "llama", "eos_token_id": 3})
    folder = change_config(saved(model, tmp_path), eos_token_id=whole)
    (folder / "generation_config.json").unlink(missing_ok=True)
    theirs = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder)).eos_token_id
    assert theirs == (whole or 3)
    assert open_float_model(folder).params["eos_idx"] == theirs


@pytest.mark.parametrize(
    "model_type, message",
    [
        ("paligemma", "'paligemma' .it has prompts whose"),
        ("mllama", "'mllama' .it has layers that attend to an image"),
    ],
)
def test_what_it_lacks_is_said(model_type, message, tmp_path):
    change_config(saved(tiny("llava"), tmp_path), model_type=model_type)
    with pytest.raises(InputError, match=message):
        open_float_model(tmp_path)


def test_a_text_model_alone_that_is_called_the_whole(tmp_path):
    """As ExecuTorch's example of Gemma 3 1B states it."""
    folder = saved(random_model("Gemma3", head_dim=16), tmp_path)
    change_config(folder, model_type="gemma3")
    with pytest.raises(InputError, match=r"text_config.* alone, its model_type is gemma3_text$"):
        open_float_model(folder)
    assert open_float_model(change_config(folder, model_type="gemma3_text")).tensors


def test_a_tensor_of_no_part_is_named(tmp_path):
    """What sees may stay unread in a model that sees, and nothing else may."""
    file = saved(tiny("llava"), tmp_path) / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"model.audio_tower.conv.weight": torch.ones(2)}, file)
    with pytest.raises(InputError, match=r"audio_tower\.conv\.weight is not known"):
        open_float_model(tmp_path)
    change_config(tmp_path, **text_of("llava"))
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"multi_modal_projector\..* are not known"):
        open_float_model(tmp_path)


def write_adapter(folder, *modules):
    """A LoRA adapter of rank 2 on `modules` of a LLaVA, whose widths are 64 or 32."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    tensors = {}
    for module in modules:
        width = 32 if "vision" in module else 64
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.ones(2, width)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.ones(width, 2)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_of_what_sees(tmp_path):
    base = saved(tiny("llava"), tmp_path / "base")
    query = "model.language_model.layers.0.self_attn.q_proj"
    sees = "model.vision_tower.encoder.layers.0.self_attn.q_proj"
    both = open_float_model(write_adapter(tmp_path / "both", query, sees), base)
    assert "also changes 1 module outside the text model" in both.notes[1] and sees in both.notes[1]
    plain, name = open_float_model(base), "layers.0.attention.wq.weight"
    assert torch.allclose(both.tensors[name], plain.tensors[name] + 2)
    with pytest.raises(InputError, match="no tensor of the text model"):
        open_float_model(write_adapter(tmp_path / "sees", sees), base)
