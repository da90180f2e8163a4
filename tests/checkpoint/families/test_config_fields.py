"""Whatever a field of config.json is, the model opens or one error says what is wrong with it."""

import json
import re
import time

import gguf
import pytest
import torch
from safetensors.torch import save_file
from tests.support.models.families import (
    GRANITE4_H,
    LFM2_MOE,
    LLAMA3_ROPE,
    LLAMA4,
    LOCAL_MIXTURE,
    LONGROPE,
    MIXTURE,
    PHI4_MINI,
    QWEN3_MOE,
    ROWS,
    SLIDING,
)
from tests.support.models.peers import change_config, config_class, random_model, saved
from tests.support.thorough import thorough
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from quatrain.checkpoint.families import FAMILIES, gguf_reading, refused
from quatrain.checkpoint.families.multimodal import MULTIMODAL
from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError

WRONG = [None, "x", "4", [], [[1]], [0.5], {}, {"a": {}}, {"full_attention": 1}, -1, 0, 1, 0.5, 1e9,
         10**9, 10**400, float("nan"), float("inf"), True, [None] * 4, ["x"] * 4]  # fmt: skip
# Read where a file has them, which files of transformers 5 do not.
OLDER = {"rope_scaling": None, "rope_theta": 10000.0, "sliding_window_pattern": None,
         "rope_local_base_freq": 10000.0, "moe_layers": None, "no_rope_layers": None,
         "original_max_position_embeddings": None, "use_bidirectional_attention": None,
         "partial_rotary_factor": None, "is_causal": True, "per_layer_config": None}  # fmt: skip


def with_one_wrong(fields, few=frozenset(), turn=0):
    """(where, `fields` with one value replaced), for each place at any depth and each of WRONG: of
    the fields `few` every third, from `turn` on."""
    for name, value in fields.items():
        for wrong in WRONG[turn % 3 :: 3] if name in few else WRONG:
            yield [name], {**fields, name: wrong}
        if isinstance(value, dict):
            for place, inner in with_one_wrong(value):
                yield [name, *place], {**fields, name: inner}


FUZZED = {name: row.kind for name, row in ROWS.items() if row.fuzzed}
# The other rows of a family, and families that are alike, read the same fields.
ALIKE = {
    "Qwen2VL": "Qwen2", "Qwen2_5_VL": "Qwen2", "Qwen3VL": "Qwen3",
    **dict.fromkeys(("Olmoe", "GraniteMoe", "Mixtral"), "Qwen3Moe"),
    "InternLM3": "Llama", "Exaone": "Llama", "VaultGemma": "Gemma2", "Jais2": "Nemotron",
    **dict.fromkeys(("Qwen3_5Moe", "Qwen3Next"), "Qwen3_5"),
}  # fmt: skip
FIRST = [*{ALIKE.get(kind, kind): name for name, kind in reversed(FUZZED.items())}.values()]
# What Llama has too is read by the same code for all: each of WRONG in some family.
SHARED = frozenset(OLDER.keys() | config_class("Llama")().to_dict().keys()) - {"rope_parameters"}


@pytest.mark.parametrize("name", FIRST)
def test_a_wrong_value_is_one_error_or_none(name, tmp_path):
    few = frozenset() if ROWS[name].kind == "Llama" else SHARED
    assert_errors_or_none(name, tmp_path, few, FIRST.index(name))


@pytest.mark.parametrize("name", thorough(FUZZED))
def test_any_wrong_value_is_one_error_or_none(name, tmp_path):
    assert_errors_or_none(name, tmp_path)


def assert_errors_or_none(name, tmp_path, few=frozenset(), turn=0):
    model = random_model(ROWS[name].kind, **ROWS[name].fields)
    path = saved(model, tmp_path) / "config.json"
    config = json.loads(path.read_text())
    config.pop("vision_config", None)  # which nobody reads
    start, count = time.process_time(), 0
    for place, wrong in with_one_wrong(OLDER | config, few, turn):
        path.unlink()  # to empty a file takes longer than to write a new one
        path.write_text(json.dumps(wrong))
        count += 1
        try:
            open_float_model(tmp_path)
        except InputError as error:
            assert len(str(error)) < 2000, place
        except Exception as error:
            raise AssertionError(f"{place}: {json.dumps(wrong)[:2000]}") from error
    # No value is a number of layers to go through.
    assert time.process_time() - start < count * 0.1


REFUSED = [
    ("Llama", {"partial_rotary_factor": 0.5}, "'partial_rotary_factor' is 0.5, expected 1 in"),
    ("Llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}, "specify different rotary"),
    ("Llama", {"rope_parameters": {"full_attention": {"rope_theta": 5e5}}}, "for some layers"),
    ("Llama", {"tie_word_embeddings": "no"}, "'tie_word_embeddings' is 'no', expected true or"),
    ("GPTJ", {"n_head": 128, "rotary_dim": None}, "'num_attention_heads' is 128, expected at most"),
    ("MobileLLM", {"layer_sharing": True}, "'layer_sharing' is True, expected false: layers that"),
    ("Mistral", {"layer_types": ["full_attention"] * 3}, "'sliding_attention' in every layer"),
    ("Qwen3", {"layer_types": ["linear_attention"] * 3}, "other types are not implemented"),
    ("Qwen3", {"layer_types": ["sliding_attention"] * 3}, "give them no window"),
    ("Gemma3", {"attn_logit_softcapping": 50.0}, "expected null, as in every released Gemma 3"),
    ("Gemma3", {"rope_parameters": {"rope_theta": 1e6}}, "'full_attention' and 'sliding_att"),
    ("Olmo3", {"rope_parameters": {"rope_theta": 1e6}}, "'full_attention' and 'sliding_att"),
    ("Qwen2", {"max_window_layers": None, "use_sliding_window": True, "layer_types": None},
     "'max_window_layers' is None, expected a whole number"),
    ("Gemma3", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 4.0}}},
     "'sliding_attention' is {.*linear.*}, expected only rope_type 'default'"),
    ("Gemma3", {"rope_parameters": {"sliding_attention": {"partial_rotary_factor": 0.5}}},
     "'sliding_attention' is {.*0.5}, expected only rope_type 'default'"),
    ("Phi3", {"rope_scaling": {
        "type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0] * 8,
        "original_max_position_embeddings": 16}},
     "is 4096 .* but 16 in the parameters of the rotary"),
    ("Llama4", {"moe_layers": [0, 3]}, r"'moe_layers' is \[0, 3\], expected every n-th layer"),
    ("Qwen3Moe", {"mlp_only_layers": [1]}, r"'mlp_only_layers' is \[1\], expected every n-th"),
    ("Olmo", {"clip_qkv": 8.0}, "'clip_qkv' is 8.0, expected null"),
    ("Olmoe", {"clip_qkv": 8.0}, "'clip_qkv' is 8.0, expected null"),
    ("Mixtral", {"num_local_experts": 1}, "'num_local_experts' is 1, expected a whole number from"),
    ("Lfm2Moe", {"layer_types": None}, "'layer_types' is None, expected 3 of 'full_attention'"),
    ("Lfm2Moe", {"num_dense_layers": -1}, "'num_dense_layers' is -1, expected a whole number"),
    ("Llama4", {"num_local_experts": 1}, "'num_local_experts' is 1, expected a whole number from"),
    ("Qwen3", {"is_causal": False}, "'is_causal' is False, expected true"),
    ("Llama", {"per_layer_config": {"1": {"rms_norm_eps": 0.1}}}, "'per_layer_config' is .*null"),
]  # fmt: skip


NOT_IMPLEMENTED = [
    (
        "SmolLM3",
        {"no_rope_layers": [0, 1, 1], "pad_token_id": 0},
        "every n-th layer, as nothing else is implemented",
    ),
    ("Gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("Llama", {"hidden_act": "relu"}, "'hidden_act' is 'relu'"),
    ("Phi", {"qk_layernorm": True}, "qk_layernorm is true: each head has its own layer norm"),
    ("GraniteMoeHybrid", GRANITE4_H | {"time_step_limit": (0.001, 0.1)}, "time steps with limits"),
]


@pytest.mark.parametrize("kind, fields, message", NOT_IMPLEMENTED)
def test_what_is_not_implemented_is_refused(kind, fields, message, tmp_path):
    saved(random_model(kind, **fields), tmp_path)
    with pytest.raises(InputError, match=message):
        open_float_model(tmp_path)


def test_windows_that_layer_types_names_need_no_other_field(tmp_path):
    folder = saved(random_model("Qwen2", **SLIDING), tmp_path)
    expected = open_float_model(folder).config
    assert "sliding_attention" in expected.layer_types
    assert open_float_model(change_config(folder, max_window_layers=None)).config == expected


def test_exaones_pattern_of_windows_is_a_word_or_a_number(tmp_path):
    """Releases state "LLLG" beside layer_types, transformers writes 4."""
    folder = saved(random_model("Exaone4", sliding_window=8, num_hidden_layers=4), tmp_path)
    expected = open_float_model(folder).config
    assert open_float_model(change_config(folder, sliding_window_pattern="LLLG")).config == expected
    assert open_float_model(change_config(folder, ["layer_types"])).config == expected
    with pytest.raises(InputError, match="'sliding_window_pattern' is 'LGLG'"):
        open_float_model(change_config(folder, sliding_window_pattern="LGLG"))


def test_exaone_as_the_hub_has_it(tmp_path):
    """Its fields and tensors by other names than transformers', and an adapter that was trained so;
    transformers saves the tensors so, too."""
    folder = saved(random_model("Exaone", num_key_value_heads=4), tmp_path / "hub")
    expected = open_float_model(folder)
    named = {"num_layers": 3, "layer_norm_epsilon": 1e-5, "activation_function": "silu"}
    found = open_float_model(change_config(folder, ["num_hidden_layers", "hidden_act"], **named))
    assert found.params == expected.params and set(found.tensors) == set(expected.tensors)
    query = "base_model.model.transformer.h.1.attn.attention.q_proj.lora"
    adapter = {f"{query}_A.weight": torch.ones(1, 64), f"{query}_B.weight": torch.ones(64, 1)}
    (tmp_path / "adapter").mkdir()
    save_file(adapter, tmp_path / "adapter" / "adapter_model.safetensors")
    said = '{"peft_type": "LORA", "r": 1, "lora_alpha": 1}'
    (tmp_path / "adapter" / "adapter_config.json").write_text(said)
    merged = open_float_model(tmp_path / "adapter", folder).tensors
    name = "layers.1.attention.wq.weight"
    assert torch.allclose(merged[name], expected.tensors[name] + 1)


def test_another_model_type_is_refused(tmp_path):
    change_config(saved(random_model("Llama"), tmp_path), model_type="bloom")
    with pytest.raises(InputError, match="model_type is 'bloom'"):
        open_float_model(tmp_path)


def test_a_model_type_that_people_ask_for_is_refused_by_what_it_has(tmp_path):
    change_config(saved(random_model("Llama"), tmp_path), model_type="mamba")
    with pytest.raises(
        InputError, match=r"'mamba' \(it has state spaces of the first Mamba, .*expected"
    ):
        open_float_model(tmp_path)
    with pytest.raises(InputError, match=r"glm4moe \(it has experts that are chosen in.*expected"):
        gguf_reading("glm4moe", "m.gguf")


def test_what_is_refused_by_name_is_known_to_others_and_to_no_family():
    assert set(refused._MODEL_TYPES) <= set(CONFIG_MAPPING_NAMES)
    assert not set(refused._MODEL_TYPES) & {family.hugging_face.model_type for family in FAMILIES}
    assert not set(refused._MODEL_TYPES) & set(MULTIMODAL)
    assert set(refused._ARCHITECTURES) <= set(gguf.MODEL_ARCH_NAMES.values())
    assert set(refused._ARCHITECTURES.values()) <= set(refused._MODEL_TYPES)


@pytest.mark.parametrize("kind, fields, message", REFUSED)
def test_what_would_be_computed_otherwise_is_refused(kind, fields, message, tmp_path):
    shape = {
        "Llama4": LLAMA4, "Phi3": {"pad_token_id": 0}, "Qwen3Moe": QWEN3_MOE,
        "Olmoe": MIXTURE, "Mixtral": LOCAL_MIXTURE, "Lfm2Moe": LFM2_MOE,
    }.get(kind, {})  # fmt: skip
    drop = ["rope_parameters"] if kind == "Phi3" else []
    change_config(saved(random_model(kind, **shape), tmp_path), drop, **fields)
    with pytest.raises(InputError, match=message):
        open_float_model(tmp_path)


def test_gemma3_sliding_layers_have_their_usual_base_where_none_is_stated(tmp_path):
    saved(random_model("Gemma3", query_pre_attn_scalar=24, sliding_window=8, head_dim=16), tmp_path)
    change_config(tmp_path, rope_parameters={"full_attention": {"rope_theta": 5e5}})
    config = open_float_model(tmp_path).config
    assert (config.rope_theta, config.local_rope_theta) == (5e5, 10000.0)


def test_rope_stated_twice_and_alike(tmp_path):
    rope = LLAMA3_ROPE | {"rope_theta": 500000.0}
    saved(random_model("Llama", rope_parameters=rope), tmp_path)
    older = {name: value for name, value in rope.items() if name != "rope_theta"}
    change_config(tmp_path, rope_scaling=older, rope_theta=500000.0)
    assert open_float_model(tmp_path).config.rope_scale_factor == 8.0


@pytest.mark.parametrize("kind", ["su", "yarn"])
def test_phi3_longrope_by_its_older_names(kind, tmp_path):
    folder = saved(random_model("Phi3", **PHI4_MINI, max_position_embeddings=64), tmp_path)
    expected = open_float_model(folder).config
    older = {name: value for name, value in LONGROPE.items() if name != "rope_type"}
    change_config(folder, ["rope_parameters"], rope_scaling=older | {"type": kind})
    assert AutoConfig.from_pretrained(folder).rope_parameters["rope_type"] == "longrope"
    assert open_float_model(folder).config == expected


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_an_end_token_that_is_none(file, tmp_path):
    saved(random_model("Llama"), tmp_path)
    (tmp_path / "generation_config.json").write_text("{}")
    fields = json.loads((tmp_path / file).read_text()) | {"eos_token_id": [2, "x"]}
    (tmp_path / file).write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"'eos_token_id' is \[2, 'x'\], expected a token id"):
        open_float_model(tmp_path)


def test_an_end_token_that_generation_config_leaves_open(tmp_path):
    change_config(saved(random_model("Llama"), tmp_path), eos_token_id=[7, 9])
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": null}')
    assert open_float_model(tmp_path).params["eos_idx"] == [7, 9]


def test_deeply_nested(tmp_path):
    path = saved(random_model("Llama"), tmp_path) / "config.json"
    whole = path.read_text()
    for depth in (500, 800, 900, 950, 200_000):
        nested = "[" * depth + "]" * depth
        path.write_text(re.sub(r'"hidden_act": "silu"', f'"hidden_act": {nested}', whole))
        with pytest.raises(InputError):
            open_float_model(tmp_path)
