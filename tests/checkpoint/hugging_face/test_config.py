"""What config.json says of a model, and what is refused in it."""

import pytest
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError


@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_llama3_scaling_from_config(tmp_path, field):
    fields = {field: tiny.LLAMA3_ROPE | {"rope_theta": 500000.0}, "rope_theta": None}
    config = open_float_model(tiny.write_hugging_face(tmp_path, **fields)).config
    assert config.use_scaled_rope
    assert config.rope_scale_factor == 32.0
    assert config.rope_theta == 500000.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "bloom"}, "model_type is 'bloom'"),
        ({"model_type": None}, "has no model_type.* add it"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"mlp_bias": True}, "gate_proj.bias, .* missing"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"rope_scaling": {"type": "axial", "factor": 4.0}}, "axial"),
        ({"rope_scaling": {"type": "yarn", "beta_fast": "32"}}, "'beta_fast' is '32'"),
        ({"rope_scaling": {"type": "dynamic"}}, "'factor' is None"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "'factor' is None"),
        (
            {"rope_scaling": tiny.LLAMA3_ROPE | {"low_freq_factor": 8.0}},
            "'high_freq_factor' is 4.0, expected at least low_freq_factor, 8.0",
        ),
        ({"sliding_window": 128, "use_sliding_window": True}, "sliding_window is 128"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"head_dim": "16"}, "head_dim"),
        ({"num_hidden_layers": 3}, "n_layers is 3 .num_hidden_layers in a config.json"),
        ({"num_hidden_layers": 10**12}, "n_layers"),
        ({"intermediate_size": 128}, "expected \\[128, 64\\]"),
        ({"vocab_size": 271}, r"\[272, 64\], expected \[271, 64\].*its vocab_size to 272"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings"),
    ],
)
def test_unsupported_config_is_named(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        open_float_model(tiny.write_hugging_face(tmp_path, **fields))


def test_a_context_of_pretraining_that_nothing_states_is_the_models_own(tmp_path):
    from transformers import LlamaConfig

    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    folder = tiny.write_hugging_face(tmp_path, rope_scaling=scaling)
    theirs = LlamaConfig.from_pretrained(folder).rope_parameters
    name = "original_max_position_embeddings"
    assert getattr(open_float_model(folder).config, name) == theirs[name]


def test_a_bias_that_the_family_has_no_word_for_counts_for_nothing(tmp_path):
    """Transformers' Mistral has no mlp_bias either."""
    folder = tiny.write_hugging_face(tmp_path, model_type="mistral", mlp_bias=True)
    assert not open_float_model(folder).config.feed_forward_bias


def test_a_window_as_long_as_the_context_does_not_apply(tmp_path):
    folder = tiny.write_hugging_face(tmp_path, model_type="mistral", sliding_window=512)
    assert open_float_model(folder).config.dim == 64


def test_tied_words_ignore_a_stored_head(tmp_path):
    """That is the embedding once more; one that is not counts (test_unread_tensors.py)."""
    tensors = tiny.float_tensors()
    tensors["output.weight"] = tensors["tok_embeddings.weight"].clone()
    folder = tiny.write_hugging_face(tmp_path, tensors, tie_word_embeddings=True)
    assert "output.weight" not in open_float_model(folder).tensors


def test_end_tokens_and_context(tmp_path):
    model = open_float_model(tiny.write_hugging_face(tmp_path))
    assert model.params["bos_idx"] == 1
    assert model.params["eos_idx"] == [2, 0]
    assert model.params["max_context_len"] == 512
    assert model.config.max_seq_len == 512


def test_a_model_without_an_output_layer_says_why(tmp_path):
    tensors = tiny.float_tensors()
    del tensors["output.weight"]
    folder = tiny.write_hugging_face(
        tmp_path, tensors, architectures=["LlamaForSequenceClassification"]
    )
    with pytest.raises(
        InputError, match="'LlamaForSequenceClassification', which does not generate text"
    ):
        open_float_model(folder)
