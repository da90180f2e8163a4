"""Fields of the rotary embedding that transformers 4 and 5 read otherwise."""

import pytest
from tests.support.models.families import GEMMA, GEMMA3N, GEMMA4, LFM3, ROWS
from tests.support.models.peers import TINY, change_config, random_model, saved
from transformers import AutoConfig

from quatrain.checkpoint.hugging_face.config import read_config
from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError

LINEAR = {"type": "linear", "factor": 4.0}
WINDOWED = {"sliding_window": 8, "num_hidden_layers": 4}


def refused(folder, message):
    with pytest.raises(InputError, match=message):
        open_float_model(folder)


@pytest.mark.parametrize("kind, fields", [("Olmo3", WINDOWED), ("Gemma3", GEMMA)])
def test_a_kind_of_scaling_under_its_older_name_alone(kind, fields, tmp_path):
    folder = saved(random_model(kind, **fields), tmp_path)
    change_config(folder, ["rope_parameters"], rope_scaling=LINEAR)
    rope = AutoConfig.from_pretrained(folder).rope_parameters
    assert rope["full_attention"]["rope_type"] == "default"
    refused(folder, "has the type 'linear', which .* uses 'default'; set rope_type")
    change_config(folder, rope_scaling=LINEAR | {"rope_type": "linear"})
    assert open_float_model(folder).config.rope_linear_factor == 4.0


def test_a_base_that_transformers_5_reads_for_some_layers(tmp_path):
    folder = saved(random_model("Olmo3", **WINDOWED), tmp_path)
    change_config(folder, ["rope_parameters"], rope_theta=5000.0)
    rope = AutoConfig.from_pretrained(folder).rope_parameters
    assert rope["full_attention"]["rope_theta"] == 5000.0
    assert rope["sliding_attention"]["rope_theta"] == 500000.0
    refused(folder, "5000.0, .* for layers with a window, where it uses 500000.0; set")
    change_config(folder, rope_parameters={"sliding_attention": {"rope_theta": 5000.0}})
    config = open_float_model(folder).config
    assert (config.rope_theta, config.local_rope_theta) == (5000.0, 5000.0)
    change_config(folder, ["rope_parameters"], rope_theta=500000.0)
    assert open_float_model(folder).config.local_rope_theta == 500000.0


def test_a_base_of_null_that_transformers_5_does_not_read(tmp_path):
    folder = saved(random_model("Llama"), tmp_path)
    rope = {"rope_type": "default", "rope_theta": None}
    change_config(folder, ["rope_theta"], rope_parameters=rope)
    refused(folder, "rope_theta is null in rope_parameters, .*; set it to the model's value there")
    change_config(folder, rope_theta=5000.0)
    assert open_float_model(folder).config.rope_theta == 5000.0


@pytest.mark.parametrize("kind", ["Cwm", "Ministral3"])
def test_a_base_that_transformers_5_does_not_read(kind, tmp_path):
    folder = saved(random_model(kind, **WINDOWED, head_dim=16), tmp_path)
    change_config(folder, ["rope_parameters"], rope_theta=5000.0)
    assert AutoConfig.from_pretrained(folder).rope_parameters["rope_theta"] == 1000000.0
    refused(folder, "5000.0, which transformers 5 ignores for all layers, where it uses 1000000.0")
    change_config(folder, rope_theta=1000000.0)
    assert open_float_model(folder).config.rope_theta == 1000000.0


@pytest.mark.parametrize("kind", ["Cwm", "Apertus"])
def test_an_object_that_says_nothing_is_no_scaling(kind, tmp_path):
    """Where a missing one is that of Llama 3.1."""
    folder = saved(random_model(kind, **{**ROWS[kind.lower()].fields}), tmp_path)
    change_config(folder, rope_parameters={})
    rope = AutoConfig.from_pretrained(folder).rope_parameters
    config = open_float_model(folder).config
    assert (rope["rope_type"], rope["rope_theta"]) == ("default", config.rope_theta)
    assert not config.use_scaled_rope
    change_config(folder, ["rope_parameters"])
    assert open_float_model(folder).config.use_scaled_rope


def test_a_base_of_a_text_model_that_transformers_5_does_not_read(tmp_path):
    text = TINY | {"model_type": "llama", "rope_theta": 5000.0}
    (tmp_path / "config.json").write_text("{}")
    change_config(tmp_path, model_type="glmasr", text_config=text)
    rope = AutoConfig.from_pretrained(tmp_path).text_config.rope_parameters
    assert rope["rope_theta"] == 10000.0
    with pytest.raises(
        InputError, match=r"5000\.0, which .* ignores for all layers, where it uses"
    ):
        read_config(tmp_path)
    change_config(tmp_path, text_config=text | {"rope_scaling": LINEAR})
    rope = AutoConfig.from_pretrained(tmp_path).text_config.rope_parameters
    assert rope["rope_theta"] == read_config(tmp_path).fields["rope_theta"] == 5000.0


def test_a_base_in_rope_scaling(tmp_path):
    folder = saved(random_model("Gemma3n", **GEMMA3N), tmp_path)
    change_config(folder, ["rope_parameters"], rope_scaling={"rope_theta": 5000.0})
    rope = AutoConfig.from_pretrained(folder).rope_parameters
    assert rope["full_attention"]["rope_theta"] == 5000.0
    assert open_float_model(folder).config.rope_theta == 5000.0
    refused(change_config(folder, rope_scaling=LINEAR), "has the type 'linear', which")
    stated = LINEAR | {"rope_type": "linear"}
    refused(change_config(folder, rope_scaling=stated), "'rope_scaling' is .*expected null, as in")


@pytest.mark.parametrize("kind, fields", [("Gemma4", GEMMA4), ("Lfm3", LFM3)])
def test_older_fields_of_models_that_never_had_them(kind, fields, tmp_path):
    folder = saved(random_model(kind, **fields), tmp_path)
    refused(change_config(folder, rope_scaling=LINEAR), "'rope_scaling' is .*expected null")
    change_config(folder, ["rope_parameters", "rope_scaling"], rope_theta=5000.0)
    rope = AutoConfig.from_pretrained(folder).rope_parameters
    assert rope["full_attention"]["rope_theta"] == 1000000.0
    refused(folder, "5000.0, which .* ignores for layers of 'full_attention', where it uses")
    assert open_float_model(change_config(folder, rope_theta=1000000.0)).config.rope_theta == 1e6


@pytest.mark.parametrize(
    "kind, fields, stated",
    [
        ("Llama", {"rope_theta": 5000.0}, "rope_theta is 5000.0, but 10000.0 in rope_parameters"),
        ("Glm", {"partial_rotary_factor": 0.25}, "factor is 0.25, but 0.5 in rope_parameters"),
        ("Gemma3", {"rope_theta": 5000.0}, "rope_theta is 5000.0, but 1000000.0 in rope_param"),
    ],
)
def test_a_figure_stated_twice(kind, fields, stated, tmp_path):
    shape = {"Glm": {"pad_token_id": 0, "head_dim": 16}, "Gemma3": GEMMA}.get(kind, {})
    folder = saved(random_model(kind, **shape), tmp_path)
    open_float_model(folder)
    refused(change_config(folder, **fields), stated)
