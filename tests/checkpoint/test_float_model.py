"""Floating-point models of every format come out the same, and what cannot is refused."""

import json

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support import tiny_models as tiny
from tests.support.paths import WRITTEN_ELSEWHERE

from quatrain.checkpoint import open_float_model
from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.errors import InputError


def assert_same(tensors, expected):
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert tensors[name].dtype == torch.float32
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize("tied", [False, True])
def test_each_format_gives_the_same_tensors(tmp_path, tied):
    expected, words = tiny.float_tensors(tied=tied), {"tie_word_embeddings": tied}
    models = [
        open_float_model(tiny.write_hugging_face(tmp_path / "hf", expected, **words)),
        open_float_model(tiny.write_hugging_face(tmp_path / "sharded", expected, 3, **words)),
        open_float_model(tiny.write_meta(tmp_path / "meta", expected)),
        open_float_model(tiny.write_gguf(tmp_path / "model.gguf", expected)),
    ]
    for model in models:
        assert_same(model.tensors, expected)
        assert (model.config.dim, model.config.hidden_dim, model.config.head_dim) == (64, 96, 16)
        assert model.config.norm_eps == 1e-5
    assert [model.config.use_hf_rope for model in models] == [True, True, False, False]


def test_names_do_not_decide_the_format(tmp_path):
    expected = tiny.float_tensors()
    gguf_file = tiny.write_gguf(tmp_path / "model.safetensors", expected)
    assert_same(open_float_model(gguf_file).tensors, expected)


def test_half_precision_is_read_as_float32(tmp_path):
    folder = tiny.write_hugging_face(tmp_path, dtype=torch.bfloat16)
    name = "layers.0.attention.wq.weight"
    expected = tiny.float_tensors()[name].bfloat16().float()
    assert torch.equal(open_float_model(folder).tensors[name], expected)


def test_tied_words_ignore_a_stored_head(tmp_path):
    folder = tiny.write_hugging_face(tmp_path, tie_word_embeddings=True)
    assert "output.weight" not in open_float_model(folder).tensors


def test_qwen_shapes(tmp_path):
    tensors = tiny.float_tensors(bias=True, qk_norm=True)
    fields = {"model_type": "qwen3", "head_dim": 16}
    hugging_face = tiny.write_hugging_face(tmp_path / "hf", tensors, **fields)
    gguf_file = tiny.write_gguf(tmp_path / "m.gguf", tensors, architecture="qwen3")
    for path in (hugging_face, gguf_file):
        model = open_float_model(path)
        assert_same(model.tensors, tensors)
        assert model.config.use_hf_rope
        assert model.config.use_qk_norm
        assert model.config.attention_qkv_bias


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_types_dequantize_as_the_gguf_package_does(tmp_path, kind):
    path = tiny.write_gguf(tmp_path / "model.gguf", kind=kind)
    tensors = open_float_model(path).tensors
    for stored in gguf.GGUFReader(path).tensors:
        expected = gguf.quants.dequantize(stored.data, stored.tensor_type)
        if stored.name == "blk.1.ffn_up.weight":
            found = tensors["layers.1.feed_forward.w3.weight"].numpy()
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_read_as_ggml_reads_them(tmp_path, kind):
    """Blocks that ggml itself wrote (see written_elsewhere/make_k_quants.py)."""
    made = load_file(WRITTEN_ELSEWHERE / "k_quants.safetensors")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    packed = made[f"{kind}.packed"].numpy()
    writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(path).float_tensors()["blk.0.ffn_up.weight"]
    assert found.shape == (4, 512)
    assert torch.allclose(found, made[f"{kind}.read"], rtol=1e-6, atol=1e-7)


def test_q4_0_integers_are_the_files_own(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(-8, 8, (64, 64))
    scales = rng.normal(size=(64, 2)).astype(np.float16)
    name = "layers.0.attention.wq.weight"
    path = tiny.write_gguf(tmp_path / "m.gguf", raw={name: tiny.q4_0_bytes(values, scales)})
    model = open_float_model(path)
    found, found_scales = model.int4_blocks[name]()
    assert np.array_equal(found.numpy(), values)
    assert np.array_equal(found_scales.numpy(), scales.astype(np.float32))
    product = found.view(64, 2, 32) * found_scales[..., None]
    assert torch.equal(product.view(64, 64), model.tensors[name])


def test_q4_0_of_the_gguf_package_round_trips(tmp_path):
    model = open_float_model(tiny.write_gguf(tmp_path / "m.gguf", kind="Q4_0"))
    for name, blocks in model.int4_blocks.items():
        values, scales = blocks()
        product = (values.view(*scales.shape, 32) * scales[..., None]).view(values.shape)
        assert torch.equal(product, model.tensors[name])


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_llama3_scaling_from_config(tmp_path, field):
    fields = {field: LLAMA3 | {"rope_theta": 500000.0}, "rope_theta": None}
    config = open_float_model(tiny.write_hugging_face(tmp_path, **fields)).config
    assert config.use_scaled_rope
    assert config.rope_scale_factor == 32.0
    assert config.rope_theta == 500000.0


def llama3_divisors(theta=500000.0, head_dim=16):
    """As transformers computes Llama 3's frequencies, over the plain ones."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(head_dim=head_dim, rope_parameters=LLAMA3 | {"rope_theta": theta})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device="cpu")
    plain = 1.0 / theta ** (torch.arange(0, head_dim, 2) / head_dim)
    return plain / scaled


def test_llama3_scaling_from_gguf(tmp_path):
    extra = {"rope_freqs.weight": llama3_divisors()}
    path = tiny.write_gguf(tmp_path / "m.gguf", metadata={"rope.freq_base": 500000.0}, extra=extra)
    config = open_float_model(path).config
    assert config.use_scaled_rope
    assert config.rope_scale_factor == pytest.approx(32.0)


def test_another_scaling_in_gguf_is_refused(tmp_path):
    extra = {"rope_freqs.weight": torch.linspace(1, 4, 8)}
    path = tiny.write_gguf(tmp_path / "m.gguf", extra=extra)
    with pytest.raises(InputError, match=r"rope_freqs\.weight is not Llama 3"):
        open_float_model(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt_neox"}, "model_type is 'gpt_neox'"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "'factor' is None"),
        ({"sliding_window": 128, "use_sliding_window": True}, "sliding_window is 128"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"head_dim": "16"}, "head_dim"),
        ({"num_hidden_layers": 3}, "n_layers is 3"),
        ({"num_hidden_layers": 10**12}, "n_layers"),
        ({"intermediate_size": 128}, "expected \\[128, 64\\]"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings"),
    ],
)
def test_unsupported_config_is_named(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        open_float_model(tiny.write_hugging_face(tmp_path, **fields))


def test_a_window_as_long_as_the_context_does_not_apply(tmp_path):
    folder = tiny.write_hugging_face(tmp_path, model_type="mistral", sliding_window=512)
    assert open_float_model(folder).config.dim == 64


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'"),
        ({"expert_count": 8}, "expert_count is 8"),
        ({"rope.dimension_count": 8}, "expected the head dimension 16"),
        ({"attention.scale": 0.5}, "attention.scale is 0.5"),
        ({"attention.key_length": 32}, "shape"),
        ({"attention.key_length": 0}, "key_length is 0, expected one or more"),
    ],
)
def test_unsupported_gguf_metadata_is_named(tmp_path, metadata, message):
    with pytest.raises(InputError, match=message):
        open_float_model(tiny.write_gguf(tmp_path / "m.gguf", metadata=metadata))


def test_a_window_that_no_model_of_its_kind_has_is_named(tmp_path):
    window = {"attention.sliding_window": 64}
    path = tiny.write_gguf(tmp_path / "m.gguf", architecture="qwen2", metadata=window)
    with pytest.raises(InputError, match="sliding_window is 64, which is not implemented"):
        open_float_model(path)


def test_unsupported_gguf_architecture_is_named(tmp_path):
    path = tiny.write_gguf(tmp_path / "m.gguf", architecture="mamba")
    with pytest.raises(InputError, match=r"mamba, expected one of .*llama, llama4, .*qwen2, qwen3"):
        open_float_model(path)


def test_unsupported_gguf_type_is_named(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor(
        "token_embd.weight",
        np.zeros((4, 136), np.uint8),
        raw_dtype=gguf.GGMLQuantizationType.IQ4_XS,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"token_embd\.weight is IQ4_XS, expected one of F32"):
        open_float_model(path)


def without(name):
    return {key: value for key, value in tiny.float_tensors().items() if key != name}


@pytest.mark.parametrize("write", [tiny.write_hugging_face, tiny.write_meta])
def test_missing_tensor_is_named(tmp_path, write):
    with pytest.raises(InputError, match=r"layers\.1\.attention\.wo\.weight is missing"):
        open_float_model(write(tmp_path, without("layers.1.attention.wo.weight")))


def test_extra_tensor_is_named(tmp_path):
    tensors = tiny.float_tensors() | {"layers.0.attention.wo.bias": torch.zeros(64)}
    with pytest.raises(InputError, match=r"layers\.0\.attention\.wo\.bias is not known"):
        open_float_model(tiny.write_meta(tmp_path, tensors))


def test_integers_are_not_a_float_model(tmp_path):
    with pytest.raises(InputError, match="is int8, expected floating point"):
        open_float_model(tiny.write_hugging_face(tmp_path, dtype=torch.int8))


def test_a_checkpoint_is_not_a_float_model(tmp_path):
    with pytest.raises(InputError, match="quantized already"):
        open_float_model(tiny.write_checkpoint(tmp_path))


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_float_model(tmp_path / "absent.gguf")
    with pytest.raises(InputError, match=r"neither config\.json"):
        open_float_model(tmp_path)


def test_a_shard_that_is_missing_or_elsewhere_is_named(tmp_path):
    folder = tiny.write_hugging_face(tmp_path / "m", shards=2)
    (folder / "model-00002-of-00002.safetensors").rename(tmp_path / "away.safetensors")
    with pytest.raises(InputError, match="model-00002-of-00002"):
        open_float_model(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../away.safetensors"}}))
    with pytest.raises(InputError, match="not in the folder"):
        open_float_model(folder)


def test_llama2_leaves_the_vocabulary_to_its_tokenizer(tmp_path):
    folder = tiny.write_meta(tmp_path, vocab_size=-1)
    assert open_float_model(folder).config.vocab_size == 272


def test_end_tokens_and_context(tmp_path):
    model = open_float_model(tiny.write_hugging_face(tmp_path))
    assert model.params["bos_idx"] == 1
    assert model.params["eos_idx"] == [2, 0]
    assert model.params["max_context_len"] == 512
    assert model.config.max_seq_len == 512
