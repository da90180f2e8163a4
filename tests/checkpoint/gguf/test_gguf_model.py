"""GGUF models: every type of block, scaled rotary embeddings, and what is refused."""

import json
import math
import re
import subprocess
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support.formats import gguf_files as ggufs
from tests.support.models import tiny_models as tiny
from tests.support.paths import WRITTEN_ELSEWHERE

from quatrain.backbone.layers.rope import Rope
from quatrain.checkpoint.gguf.blocks import (
    GgufTensor,
    dequantizer,
    int4_blocks,
    int4_group_size,
    with_scales,
)
from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.checkpoint.open import open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_types_dequantize_as_the_gguf_package_does(tmp_path, kind):
    path = ggufs.write_gguf(tmp_path / "model.gguf", kind=kind)
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
    path = ggufs.write_k_quants(tmp_path / "m.gguf", {kind: "blk.0.ffn_up.weight"})
    found = read_gguf(path).float_tensors()["blk.0.ffn_up.weight"]
    assert found.shape == (4, 512)
    assert torch.allclose(found, made[f"{kind}.read"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_types_are_int4_in_groups_of_256(kind):
    wanted = gguf.GGMLQuantizationType[kind]
    weights = np.random.default_rng(0).standard_normal((4, 512), np.float32)
    tensor = GgufTensor(
        "blk.0.ffn_up.weight", kind, (4, 512), gguf.quants.quantize(weights, wanted)
    )
    values, scales = int4_blocks(tensor)
    assert int4_group_size(tensor) == 256 and scales.shape == (4, 2)
    assert values.unique().tolist() == [-1, 0, 1]
    found = (values.unflatten(1, (2, 256)) * scales[..., None]).flatten(1)
    assert np.array_equal(found.numpy(), gguf.quants.dequantize(tensor.data, wanted))


def test_q3_k_is_int4_in_groups_of_16():
    made = load_file(WRITTEN_ELSEWHERE / "k_quants.safetensors")
    tensor = GgufTensor("blk.0.ffn_up.weight", "Q3_K", (4, 512), made["Q3_K.packed"].numpy())
    values, scales = int4_blocks(tensor)
    assert (values.dtype, int(values.min()), int(values.max())) == (torch.int8, -4, 3)
    assert int4_group_size(tensor) == 16 and scales.shape == (4, 32)
    weights = (values.unflatten(1, (32, 16)) * scales[..., None]).flatten(1)
    assert torch.equal(weights, dequantizer(tensor)())
    assert torch.allclose(weights, made["Q3_K.read"], rtol=1e-6, atol=1e-7)
    inside, across = np.arange(512).reshape(-1, 16)[::-1].ravel(), np.arange(512)[::-1]
    turned = replace(tensor, columns=inside)
    assert (
        int4_group_size(turned) == 16 and int4_group_size(replace(tensor, columns=across)) is None
    )
    assert torch.equal(int4_blocks(turned)[0], values[:, inside])
    assert torch.equal(int4_blocks(turned)[1], scales.flip(1))


_BLOCKS = [
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS",
    "Q5_K", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
]  # fmt: skip


@pytest.mark.parametrize("kind", _BLOCKS)
def test_other_blocks_read_as_the_gguf_package_reads_them(tmp_path, kind):
    wanted = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[wanted]
    # Bytes below 64: no float16 among them is infinite or not a number.
    packed = np.random.default_rng(0).integers(0, 64, (4, 512 // block * block_bytes), np.uint8)
    path = tmp_path / "m.gguf"
    with ggufs.gguf_file(path) as writer:
        writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=wanted)
    found = read_gguf(path).float_tensors()["blk.0.ffn_up.weight"]
    assert found.shape == (4, 512)
    assert np.array_equal(found.numpy(), gguf.quants.dequantize(packed, wanted))


def test_a_scale_of_a_norm_is_not_from_llama_cpp(tmp_path):
    path = ggufs.write_gguf(
        tmp_path / "m.gguf", extra={"blk.0.attn_norm.scale": torch.tensor([2.0])}
    )
    with pytest.raises(InputError, match=r"blk\.0\.attn_norm\.scale .*not known"):
        open_float_model(path)


def test_a_file_that_states_no_context_says_what_is_taken_for_it(tmp_path):
    stated, path = ggufs.write_gguf(tmp_path / "stated.gguf"), tmp_path / "m.gguf"
    assert not any("context" in note for note in open_float_model(stated).notes)
    path.write_bytes(stated.read_bytes().replace(b"llama.context_length", b"llama.context_leng__"))
    model = open_float_model(path)
    assert any("no llama.context_length, so 2048 tokens" in note for note in model.notes)
    assert model.params["max_context_len"] == 2048


@pytest.mark.parametrize(
    "names",
    [
        ("m.gguf.part1of2", "m.gguf.part2of2"),
        ("m.gguf-split-a", "m.gguf-split-b"),
        tuple(f"m.gguf.part{number}of11" for number in range(1, 12)),
    ],
)
def test_a_file_cut_in_pieces_says_how_they_are_joined(tmp_path, names):
    whole = ggufs.write_gguf(tmp_path / "m.gguf")
    content = whole.read_bytes()
    size = -(-len(content) // len(names))
    for index, name in enumerate(names):
        (tmp_path / name).write_bytes(content[index * size : (index + 1) * size])
    whole.unlink()
    for name in names[:2]:
        with pytest.raises(InputError, match=r"a piece of m\.gguf") as caught:
            open_float_model(tmp_path / name)
    command = re.search(r"\(`(cat .*)`\)", str(caught.value))
    assert command
    subprocess.run(command[1], shell=True, check=True)
    assert whole.read_bytes() == content
    (tmp_path / "m.gguf.part").write_bytes(content[:100])  # a browser's, of a download cut short
    with pytest.raises(InputError, match="Download it again"):
        open_float_model(tmp_path / "m.gguf.part")


@pytest.mark.parametrize("kind", ["MXFP4", "Q4_0"])
def test_a_scale_beside_a_matrix_multiplies_it_as_in_llama_cpp(tmp_path, kind):
    tensors = tiny.float_tensors()
    name, other = "layers.0.feed_forward.w2.weight", "layers.1.feed_forward.w2.weight"
    scales = {
        "blk.0.ffn_down.scale": torch.tensor([0.125]),
        "blk.0.ffn_down.input_scale": torch.tensor([3.0]),
    }
    path = ggufs.write_gguf(tmp_path / "m.gguf", tensors, kind=kind, extra=scales)
    model = open_float_model(path)
    wanted = gguf.GGMLQuantizationType[kind]
    stored = {
        each: gguf.quants.dequantize(gguf.quants.quantize(tensors[each].numpy(), wanted), wanted)
        for each in (name, other)
    }
    assert np.array_equal(model.tensors[name].numpy(), stored[name] * 0.125)
    assert np.array_equal(model.tensors[other].numpy(), stored[other])
    assert np.array_equal(model.tensors.rows_of(name)(slice(3, 5)).numpy(), stored[name][3:5] / 8)
    assert (name in model.int4_blocks, other in model.int4_blocks) == (False, kind == "Q4_0")


def test_experts_have_a_scale_each(tmp_path):
    weight, scales = np.random.rand(3, 4, 32).astype(np.float32), np.float32([2, 0.5, 3])
    with ggufs.gguf_file(tmp_path / "m.gguf") as writer:
        writer.add_tensor("blk.0.ffn_up_exps.weight", weight)
        writer.add_tensor("blk.0.ffn_up_exps.scale", scales)
        writer.add_tensor("blk.0.ffn_gate_inp.weight", weight[0])
        writer.add_tensor("blk.0.ffn_gate_inp.scale", scales)  # of something else: not one number
    tensors = with_scales(read_gguf(tmp_path / "m.gguf").tensors)
    assert set(tensors) == {
        "blk.0.ffn_up_exps.weight", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_inp.scale"
    }  # fmt: skip
    experts = tensors["blk.0.ffn_up_exps.weight"]
    assert np.array_equal(dequantizer(experts)().numpy(), weight * scales[:, None, None])
    second = dequantizer(experts.part("b", 4, (4, 32)))()
    assert np.array_equal(second.numpy(), weight[1] * 0.5)


def test_q1_0_is_a_sign_for_each_weight(tmp_path):
    """As llama.cpp has it; the gguf package knows its size alone."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], (4, 2, 128))
    scales = rng.random((4, 2, 1), np.float32).astype(np.float16)
    octets = np.zeros((4, 2, 16), np.uint8)
    for weight in range(128):
        octets[..., weight // 8] |= (signs[..., weight] > 0).astype(np.uint8) << (weight % 8)
    packed = np.concatenate([scales.view(np.uint8), octets], -1).reshape(4, -1)
    with ggufs.gguf_file(tmp_path / "m.gguf") as writer:
        kind = gguf.GGMLQuantizationType.Q1_0
        writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=kind)
    found = read_gguf(tmp_path / "m.gguf").float_tensors()["blk.0.ffn_up.weight"]
    assert np.array_equal(found.numpy(), (signs * scales.astype(np.float32)).reshape(4, 256))


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.NVFP4, gguf.GGMLQuantizationType.F32])
def test_a_type_of_another_size_than_its_number_says(tmp_path, kind):
    """As of a fork of llama.cpp, which gave the number to a type of its own."""
    path = tmp_path / "m.gguf"
    with ggufs.gguf_file(path) as writer:
        for name in ("up", "gate"):
            writer.add_tensor(f"blk.0.ffn_{name}.weight", np.zeros((64, 64), np.float16))
    content = path.read_bytes()
    kind_at = content.index(b"ffn_up.weight") + len("ffn_up.weight") + 4 + 16
    changed = content[:kind_at] + int(kind).to_bytes(4, "little") + content[kind_at + 4 :]
    path.write_bytes(changed + bytes(1 << 16))
    with pytest.raises(
        InputError, match=r"ffn_gate\.weight begins at 8192, expected .*: the tensor before it"
    ):
        read_gguf(path)


def test_q4_0_integers_are_the_files_own(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(-8, 8, (64, 64))
    scales = rng.normal(size=(64, 2)).astype(np.float16)
    name = "layers.0.attention.wq.weight"
    path = ggufs.write_gguf(tmp_path / "m.gguf", raw={name: ggufs.q4_0_bytes(values, scales)})
    model = open_float_model(path)
    found, found_scales = model.int4_blocks[name]()
    assert np.array_equal(found.numpy(), values)
    assert np.array_equal(found_scales.numpy(), scales.astype(np.float32))
    product = found.view(64, 2, 32) * found_scales[..., None]
    assert torch.equal(product.view(64, 64), model.tensors[name])


def test_q4_0_of_the_gguf_package_round_trips(tmp_path):
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", kind="Q4_0"))
    for name, blocks in model.int4_blocks.items():
        values, scales = blocks()
        product = (values.view(*scales.shape, 32) * scales[..., None]).view(values.shape)
        assert torch.equal(product, model.tensors[name])


def llama3_divisors():
    """As transformers computes Llama 3's frequencies, over the plain ones."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = tiny.LLAMA3_ROPE | {"rope_theta": 500000.0}
    config = LlamaConfig(head_dim=16, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device="cpu")
    plain = 1.0 / 500000.0 ** (torch.arange(0, 16, 2) / 16)
    return plain / scaled


def test_llama3_scaling_from_gguf(tmp_path):
    extra = {"rope_freqs.weight": llama3_divisors()}
    path = ggufs.write_gguf(tmp_path / "m.gguf", metadata={"rope.freq_base": 500000.0}, extra=extra)
    config = open_float_model(path).config
    assert config.use_scaled_rope
    assert config.rope_scale_factor == pytest.approx(32.0)


@pytest.mark.parametrize("linear", [1.0, 4.0])
def test_other_divisors_in_gguf_are_read_as_they_are(tmp_path, linear):
    """A fine-tune may scale otherwise than Llama 3.1; llama.cpp divides by both."""
    stated = torch.linspace(1, 4, 8)
    metadata = {"rope.scaling.type": "linear", "rope.scaling.factor": linear}
    path = ggufs.write_gguf(
        tmp_path / "m.gguf",
        metadata=metadata if linear > 1 else {},
        extra={"rope_freqs.weight": stated},
    )
    config = open_float_model(path).config
    cosines, sines = Rope(config)(0, 5)
    plain = 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    angles = torch.arange(5)[:, None] * plain / (stated * linear)
    assert torch.allclose(cosines[:, :8], angles.cos(), atol=1e-6)
    assert torch.allclose(sines[:, :8], angles.sin(), atol=1e-6)


@pytest.mark.parametrize(
    ("divisors", "metadata", "message"),
    [
        (torch.ones(4), {}, r"rope_freqs\.weight is not 8 numbers above 0"),
        (torch.zeros(8), {}, r"rope_freqs\.weight is not 8 numbers above 0"),
        (torch.ones(8), {"rope.scaling.type": "yarn"}, r"'yarn'.*beside rope_freqs\.weight"),
    ],
)
def test_values_in_gguf_that_are_not_divisors(tmp_path, divisors, metadata, message):
    extra = {"rope_freqs.weight": divisors}
    path = ggufs.write_gguf(tmp_path / "m.gguf", metadata=metadata, extra=extra)
    with pytest.raises(InputError, match=message):
        open_float_model(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"rope.scaling.type": "other"}, "rope.scaling.type is 'other'"),
        ({"rope.scaling.type": "yarn"}, "llama.rope.scaling.factor' is None"),
        ({"expert_count": 8}, "llama.expert_used_count' is None"),
        ({"expert_count": 1}, "expert_count is 1, expected 2 or more experts"),
        ({"rope.dimension_count": 8}, "expected the head dimension 16"),
        ({"attention.scale": 0.5}, "attention.scale is 0.5"),
        ({"attention.causal": False}, "attention.causal is 0"),
        ({"rope.scaling.attn_factor": 0.5}, "attn_factor is 0.5, expected 1"),
        ({"attention.key_length": 32}, "shape"),
        ({"attention.key_length": 0}, "key_length is 0, expected one or more"),
        (
            {"attention.sliding_window": [4, 8]},
            "sliding_window is .*values that differ between layers",
        ),
        (
            {"attention.head_count_kv": [2, 1]},
            "head_count_kv is .*values that differ between layers",
        ),
        (
            {"attention.head_count_kv": [2, 2, 2]},
            "head_count_kv is .*values that differ between layers",
        ),
        ({"logit_scale": [1, 2]}, "logit_scale is array.*not implement"),
        ({"rope.scaling.type": [1, 2]}, "rope.scaling.type is array.*expected a text"),
        ({"rope.freq_base": math.nan}, "rope.freq_base' is nan, expected a number"),
        ({"rope.scaling.factor": math.inf}, "rope.scaling.factor' is inf, expected a number"),
    ],
)
def test_unsupported_gguf_metadata_is_named(tmp_path, metadata, message):
    with pytest.raises(InputError, match=message):
        open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", metadata=metadata))


def test_an_absurd_factor_of_yarn(tmp_path):
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 1e30}
    config = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", metadata=yarn)).config
    assert max(config.rope_scaling_long_factor) == pytest.approx(1e30)


def test_one_number_for_each_layer(tmp_path):
    same = {"attention.head_count_kv": [2, 2], "feed_forward_length": [96, 96]}
    config = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", metadata=same)).config
    assert (config.n_kv_heads, config.hidden_dim) == (2, 96)


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        ({"rope.scaling.factor": 4.0}, 4.0),
        ({"rope.scale_linear": 4.0}, 4.0),
        ({"rope.scaling.type": "linear", "rope.scale_linear": 4.0}, 4.0),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, 1.0),
        ({"rope.scaling.factor": 0.0}, 1.0),
    ],
)
def test_a_factor_is_of_a_linear_scaling_where_no_other_is_stated(tmp_path, metadata, factor):
    """As llama.cpp's loader reads it (`load_hparams`)."""
    config = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", metadata=metadata)).config
    assert config.rope_linear_factor == factor


@pytest.mark.parametrize("architecture", ["qwen2", "qwen2vl"])
def test_a_qwen2_without_its_biases(tmp_path, architecture):
    path = ggufs.write_gguf(tmp_path / "m.gguf", architecture=architecture)
    with pytest.raises(InputError, match=r"attn_k\.bias.*are missing"):
        open_float_model(path)


def test_metadata_that_nothing_reads_is_named(tmp_path):
    figures = {"attention.new_kind": 3, "vocab_size": 128}
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", metadata=figures))
    assert model.notes == ("Metadata that is not used: llama.attention.new_kind (3).",)


def test_a_special_token_that_is_minus_1_is_none(tmp_path):
    """llama.cpp's LLAMA_TOKEN_NULL, in a key of unsigned numbers."""
    path = ggufs.write_gguf(tmp_path / "m.gguf")
    content = path.read_bytes()
    for token in ("bos", "eos"):
        key = f"tokenizer.ggml.{token}_token_id".encode()
        before, _, after = content.partition(key)
        content = before + key + after[:4] + b"\xff" * 4 + after[8:]  # behind the value's type
    path.write_bytes(content)
    model = open_float_model(path)
    assert model.params.get("bos_idx") is None and not model.params.get("eos_idx")
    assert model.write_tokenizer(tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not written.keys() & {"bos_token", "eos_token"}


def test_how_answers_are_drawn_is_said(tmp_path):
    figures = {"temp": 0.6, "top_k": 20, "penalty_repeat": 1.0, "xtc_probability": 0.5}
    figures = {f"general.sampling.{key}": value for key, value in figures.items()}
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", metadata=figures))
    drawn, unread = model.notes
    assert drawn.endswith("as --temperature 0.6 --top-k 20.")
    assert "has general.sampling.xtc_probability, which no command supports" in unread


def test_a_window_that_no_model_of_its_kind_has_is_named(tmp_path):
    window = {"attention.sliding_window": 64}
    path = ggufs.write_gguf(tmp_path / "m.gguf", architecture="qwen2", metadata=window)
    with pytest.raises(InputError, match="sliding_window is 64, which is not implemented"):
        open_float_model(path)


@pytest.mark.parametrize(
    ("architecture", "kind", "message"),
    [
        ("llama", "adapter", "is an adapter.*`llama-export-lora -m"),
        ("llama", "imatrix", "is llama.cpp's measurements.*; give the model's own file$"),
        ("clip", "mmproj", "is the image or audio encoder.*; give the model's own file$"),
        ("clip", None, "is the image or audio encoder.*; give the model's own file$"),
        ("controlvector", None, "is a control vector of llama.cpp.*; give the model's own file$"),
        ("llama", "new", "is not a model.*; give the model's own file$"),
    ],
)
def test_what_is_not_a_model_is_named(tmp_path, architecture, kind, message):
    with ggufs.gguf_file(tmp_path / "m.gguf", architecture) as writer:
        if kind:
            writer.add_type(kind)
        writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((4, 64), np.float32))
    with pytest.raises(InputError, match=message):
        open_float_model(tmp_path / "m.gguf")


def test_what_encodes_images_in_the_same_file(tmp_path):
    """As in Ollama's files of Gemma 3 and others that see."""
    extra = {"v.blk.0.attn_q.weight": torch.ones(8, 8), "mm.mm_soft_emb_norm.weight": torch.ones(8)}
    path = ggufs.write_gguf(tmp_path / "m.gguf", extra=extra)
    with pytest.raises(
        InputError, match=r"also holds an image or audio encoder \(v\.blk.*as files of Ollama do"
    ):
        open_float_model(path)


def test_unsupported_gguf_architecture_is_named(tmp_path):
    expected = "expected one of .*llama, llama4, .*qwen2, qwen3"
    for architecture, said in (
        ("mamba", r"mamba \(it has state spaces of the first Mamba, which"),
        ("new", "new"),
    ):
        path = ggufs.write_gguf(tmp_path / "m.gguf", architecture=architecture)
        with pytest.raises(InputError, match=f"its architecture is {said}.*, {expected}"):
            open_float_model(path)


def test_unsupported_gguf_type_is_named(tmp_path):
    path = tmp_path / "m.gguf"
    with ggufs.gguf_file(path) as writer:
        writer.add_tensor("token_embd.weight", np.zeros((4, 8)))
    with pytest.raises(InputError, match=r"token_embd\.weight is F64, expected one of F32"):
        open_float_model(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (31, r"is Q4_0 repacked.*use the model's Q4_0 file$"),
        (36, r"is IQ4_NL repacked.*a BitNet of Microsoft's llama\.cpp.*its Hugging Face folder"),
        (99, "of the type 99, which"),
    ],
)
def test_an_unreadable_type_is_not_called_damage(tmp_path, kind, message):
    """Q4_0_4_4 of the phones' llama.cpp of 2024, and what may come."""
    file = ggufs.write_gguf(tmp_path / "m.gguf", kind="Q4_0")
    content, name = bytearray(file.read_bytes()), b"blk.0.ffn_down.weight"
    of_type = content.index(name) + len(name) + 4 + 2 * 8  # behind two dimensions
    content[of_type] = kind
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_float_model(file)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((2, 8), "longrope", r"rope_factors_short\.weight has shape \[2, 8\]"),
        (
            (8,),
            "yarn",
            r"rope\.scaling\.type is 'yarn', expected 'longrope' beside rope_factors_long",
        ),
        ((8,), [1, 2, 3], r"rope\.scaling\.type is .*expected a text"),
        ((8,), "longrope", None),
    ],
)
def test_longrope_factors(tmp_path, shape, kind, message):
    names = ("rope_factors_short.weight", "rope_factors_long.weight")
    figures = {"rope.scaling.original_context_length": 64, "rope.scaling.type": kind}
    extra = dict.fromkeys(names, torch.ones(shape))
    path = ggufs.write_gguf(tmp_path / "m.gguf", extra=extra, metadata=figures)
    if message is None:
        assert not open_float_model(path).notes
        return
    with pytest.raises(InputError, match=message):
        open_float_model(path)


def test_a_factor_beside_longrope_divides_positions_too(tmp_path):
    """As llama.cpp's loader reads it, which was run on such a file."""
    figures = {"rope.scaling.original_context_length": 64, "rope.scaling.type": "longrope"}
    extra = {
        "rope_factors_short.weight": torch.ones(8),
        "rope_factors_long.weight": torch.linspace(1, 2, 8),
    }
    metadata = figures | {"rope.scaling.factor": 4.0}
    path = ggufs.write_gguf(tmp_path / "m.gguf", extra=extra, metadata=metadata)
    config = open_float_model(path).config
    assert config.rope_scaling_short_factor == pytest.approx([4.0] * 8)
    assert config.rope_scaling_long_factor == pytest.approx(torch.linspace(4, 8, 8).tolist())


def test_the_epsilon_of_norms_of_another_kind_is_not_read(tmp_path):
    """A file may state both, where its config.json has."""
    metadata = {"attention.layer_norm_epsilon": 0.1}
    opened = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", metadata=metadata))
    assert opened.config.norm_eps == 1e-5


def test_a_gguf_mixture_of_one_expert(tmp_path):
    figures = {"expert_count": 1, "expert_used_count": 1}
    path = ggufs.write_gguf(tmp_path / "m.gguf", architecture="llama4", metadata=figures)
    with pytest.raises(InputError, match="expert_count is 1, expected 0, or 2 or more experts"):
        open_float_model(path)


def write_split(folder, names=("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")):
    """The model of `gguf_files` in two parts, as llama-gguf-split has them: all metadata in the
    first."""
    whole = gguf.GGUFReader(ggufs.write_gguf(folder / "whole.gguf"))
    half = len(whole.tensors) // 2
    for number, tensors in enumerate((whole.tensors[:half], whole.tensors[half:])):
        with ggufs.gguf_file(folder / names[number]) as writer:
            for field in whole.fields.values() if number == 0 else ():
                known = field.name.startswith("GGUF.") or field.name == "general.architecture"
                if not known and field.types[0] == gguf.GGUFValueType.ARRAY:
                    writer.add_array(field.name, field.contents())
                elif not known:
                    writer.add_key_value(field.name, field.contents(), field.types[0])
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", 2)
            for tensor in tensors:
                writer.add_tensor(tensor.name, np.array(tensor.data))
    return folder / names[0]


def test_a_split_model_is_read_whole(tmp_path):
    model = open_float_model(write_split(tmp_path))
    for name, tensor in tiny.float_tensors().items():
        assert torch.equal(model.tensors[name], tensor), name
    assert source_files(model.source, None) == sorted(tmp_path.glob("m-*"))
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(InputError, match=r"m-00002-of-00002\.gguf is not beside it"):
        open_float_model(model.source)


def test_parts_that_were_joined_byte_by_byte(tmp_path):
    write_split(tmp_path)
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(b"".join(part.read_bytes() for part in sorted(tmp_path.glob("m-*"))))
    with pytest.raises(InputError, match=r"a second GGUF file after.*--merge"):
        open_float_model(whole)


def test_parts_that_are_not_the_ones_that_their_names_say(tmp_path):
    write_split(tmp_path)
    first, second = sorted(tmp_path.glob("m-*"))
    content = second.read_bytes()
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"m-00002-of-00002\.gguf: is part 1 of 2 of a split"):
        open_float_model(first)
    second.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"m-00002-of-00002\.gguf: is a Git LFS pointer"):
        open_float_model(first)
    second.unlink()
    second.symlink_to(tmp_path / "blob")
    with pytest.raises(InputError, match=r"m-00002-of-00002\.gguf: is a link to .*blob"):
        open_float_model(first)
    (tmp_path / "blob").write_bytes(content)
    assert open_float_model(first).tensors


def test_a_part_under_another_name(tmp_path):
    with pytest.raises(InputError, match=r"is part 1 of 2 .* found by their names"):
        open_float_model(write_split(tmp_path, ("a.gguf", "b.gguf")))


def test_big_endian_is_named_with_what_turns_it(tmp_path):
    path = ggufs.write_gguf(tmp_path / "m.gguf")
    turned = bytearray(path.read_bytes())
    turned[4:8] = turned[7:3:-1]
    path.write_bytes(turned)
    with pytest.raises(InputError, match=r"big-endian.*gguf-convert-endian"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(1, "use a newer file of the model, or its folder"), (4, "a converter of version 3")],
)
def test_another_version_is_not_a_broken_download(tmp_path, version, remedy):
    path = ggufs.write_gguf(tmp_path / "m.gguf")
    path.write_bytes(b"GGUF" + version.to_bytes(4, "little") + path.read_bytes()[8:])
    with pytest.raises(InputError, match=f"of version {version}.*{remedy}"):
        read_gguf(path)
