"""Floating-point models of every format come out the same, and what cannot is refused."""

import pytest
import torch
from tests.support.formats import gguf_files as ggufs
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_checkpoint, open_float_model
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
        open_float_model(ggufs.write_gguf(tmp_path / "model.gguf", expected)),
    ]
    for model in models:
        assert_same(model.tensors, expected)
        assert (model.config.dim, model.config.hidden_dim, model.config.head_dim) == (64, 96, 16)
        assert model.config.norm_eps == 1e-5
    assert [model.config.use_hf_rope for model in models] == [True, True, False, False]


def test_names_do_not_decide_the_format(tmp_path):
    expected = tiny.float_tensors()
    gguf_file = ggufs.write_gguf(tmp_path / "model.safetensors", expected)
    assert_same(open_float_model(gguf_file).tensors, expected)


def test_half_precision_is_read_as_float32(tmp_path):
    folder = tiny.write_hugging_face(tmp_path, dtype=torch.bfloat16)
    name = "layers.0.attention.wq.weight"
    expected = tiny.float_tensors()[name].bfloat16().float()
    assert torch.equal(open_float_model(folder).tensors[name], expected)


def test_qwen_shapes(tmp_path):
    tensors = tiny.float_tensors(attention_qkv_bias=True, use_qk_norm=True)
    fields = {"model_type": "qwen3", "head_dim": 16, "attention_bias": True}
    hugging_face = tiny.write_hugging_face(tmp_path / "hf", tensors, **fields)
    gguf_file = ggufs.write_gguf(tmp_path / "m.gguf", tensors, architecture="qwen3")
    for path in (hugging_face, gguf_file):
        model = open_float_model(path)
        assert_same(model.tensors, tensors)
        assert model.config.use_hf_rope
        assert model.config.use_qk_norm
        assert model.config.attention_qkv_bias


def without(name):
    return {key: value for key, value in tiny.float_tensors().items() if key != name}


WO = "layers.1.attention.wo.weight"
# What each format calls that.
WRITERS = [
    (tiny.write_hugging_face, r"tensor model\.layers\.1\.self_attn\.o_proj\.weight"),
    (tiny.write_meta, r"tensor layers\.1\.attention\.wo\.weight"),
    (lambda folder, tensors: ggufs.write_gguf(folder / "m.gguf", tensors),
     r"tensor blk\.1\.attn_output\.weight"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_a_tensor_is_named_as_the_file_does(tmp_path, write, name):
    with pytest.raises(InputError, match=f"{name} is missing"):
        open_float_model(write(tmp_path, without(WO)))
    wrong = tiny.float_tensors() | {WO: torch.zeros(64, 32)}
    with pytest.raises(InputError, match=name.partition(" ")[2] + r" has shape \[64, 32\]"):
        open_float_model(write(tmp_path, wrong))


def test_extra_tensor_is_named(tmp_path):
    tensors = tiny.float_tensors() | {"layers.0.attention.wo.bias": torch.zeros(64)}
    with pytest.raises(InputError, match=r"layers\.0\.attention\.wo\.bias is not known"):
        open_float_model(tiny.write_meta(tmp_path, tensors))


def test_integers_are_not_a_float_model(tmp_path):
    with pytest.raises(InputError, match=r"lm_head\.weight is int8, expected floating point"):
        open_float_model(tiny.write_hugging_face(tmp_path, dtype=torch.int8))


def test_a_checkpoint_is_not_a_float_model(tmp_path):
    with pytest.raises(InputError, match="already quantized"):
        open_float_model(tiny.write_checkpoint(tmp_path))


@pytest.mark.parametrize("whole", [True, False])
def test_a_float_model_of_metas_is_not_a_checkpoint(tmp_path, whole):
    folder = tiny.write_meta(tmp_path / "meta")
    with pytest.raises(InputError, match=r"floating-point model.*quatrain quantize .*meta -o DIR"):
        open_checkpoint(folder if whole else folder / "consolidated.00.pth")


@pytest.mark.parametrize("whole", [True, False])
def test_the_folder_is_named_where_a_linear_of_a_checkpoint_was_left(tmp_path, whole):
    tensors = tiny.int4_tensors()
    tensors.pop("layers.0.feed_forward.w2.scales")
    tensors["layers.0.feed_forward.w2.weight"] = torch.randn(64, 96)
    folder = tiny.write_checkpoint(tmp_path / "left", tensors)
    told = r"w2 is in floating point, .*`quatrain convert .*left DIR`"
    with pytest.raises(InputError, match=told):
        open_checkpoint(folder if whole else folder / "model.safetensors")


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_float_model(tmp_path / "absent.gguf")
    with pytest.raises(InputError, match=r"neither config\.json"):
        open_float_model(tmp_path)


def test_llama2_leaves_the_vocabulary_to_its_tokenizer(tmp_path):
    folder = tiny.write_meta(tmp_path / "float", vocab_size=-1)
    assert open_float_model(folder).config.vocab_size == 272
    int4 = tiny.write_checkpoint(tmp_path / "int4", vocab_size=-1)
    assert open_checkpoint(int4).params["vocab_size"] == 272
