"""Int4 checkpoints: opened without reading their data, and refused by name where they are wrong."""

import math
import pickle

import pytest
import torch
from tests.support.formats import gguf_files as ggufs
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError

WQ = "layers.0.attention.wq"
FILES = ["model.safetensors", "consolidated.00.pth"]


@pytest.mark.parametrize("file", FILES)
def test_opens_a_folder_or_a_file(tmp_path, file):
    folder = tiny.write_checkpoint(tmp_path / "a", file=file)
    elsewhere = folder.joinpath("params.json").rename(tmp_path / "elsewhere.json")
    by_file = open_checkpoint(folder / file, params=elsewhere)
    elsewhere.rename(folder / "params.json")
    for checkpoint in (by_file, open_checkpoint(folder), open_checkpoint(folder / file)):
        expected = tiny.int4_tensors()
        assert set(checkpoint.tensors) == set(expected)
        for name in expected:
            assert torch.equal(checkpoint.tensors[name], expected[name])
        assert checkpoint.group_size == 32
        assert checkpoint.source == folder / file
        assert checkpoint.config.hidden_dim == 96
        checkpoint.check_values()


def test_content_decides_not_the_name(tmp_path):
    folder = tiny.write_checkpoint(tmp_path)
    (folder / "model.safetensors").rename(folder / "model.pth")
    assert open_checkpoint(folder).group_size == 32


def test_a_pth_called_safetensors_is_recognized(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, file="m.pth")
    (folder / "m.pth").rename(folder / "m.safetensors")
    with pytest.raises(InputError, match=r"rename it to \.pth"):
        open_checkpoint(folder)


@pytest.mark.parametrize("file", FILES)
def test_tensors_are_mapped_not_copied(tmp_path, file):
    tensors = open_checkpoint(tiny.write_checkpoint(tmp_path, file=file)).tensors
    first, second = tensors[f"{WQ}.weight"], tensors[f"{WQ}.weight"]
    assert first.data_ptr() == second.data_ptr()


@pytest.mark.parametrize("embedding", ["int8", "int4", "fp"])
@pytest.mark.parametrize("output", ["int8", "int4"])
@pytest.mark.parametrize("declared", [True, False])
def test_kinds(tmp_path, embedding, output, declared):
    arguments = {"group_size": 32}
    if declared:
        arguments |= {"embedding": embedding, "output": output}
    tensors = tiny.int4_tensors(embedding=embedding, output=output)
    checkpoint = open_checkpoint(
        tiny.write_checkpoint(tmp_path, tensors, quantization_args=arguments)
    )
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == (embedding, output)
    checkpoint.check_values()


def test_tied_output_and_grouped_int8_embedding(tmp_path):
    tensors = tiny.int4_tensors()
    del tensors["output.weight"], tensors["output.scales"]
    tensors["tok_embeddings.scales"] = torch.ones(272, 2)
    checkpoint = open_checkpoint(tiny.write_checkpoint(tmp_path, tensors))
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "tied")
    checkpoint.check_values()


def test_the_layouts_freedoms(tmp_path):
    """Zeros that are zero, scales [N, 1], half-precision scales, bias, QK norm, no stated group."""
    tensors = tiny.int4_tensors(output="int8", attention_qkv_bias=True, use_qk_norm=True)
    tensors[f"{WQ}.zeros"] = torch.zeros_like(tensors[f"{WQ}.scales"])
    tensors["output.scales"] = tensors["output.scales"].reshape(-1, 1)
    tensors[f"{WQ}.scales"] = tensors[f"{WQ}.scales"].bfloat16()
    tensors["rope.freqs"] = torch.ones(8)
    folder = tiny.write_checkpoint(
        tmp_path, tensors, quantization_args=None, attention_qkv_bias=True, use_qk_norm=True
    )
    checkpoint = open_checkpoint(folder)
    assert checkpoint.group_size == 32
    assert checkpoint.output_kind == "int8"
    assert "rope.freqs" not in checkpoint.tensors
    checkpoint.check_values()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        (f"{WQ}.weight", (3, 5), 8, rf"{WQ}\.weight\[3, 5\] is 8, expected an int4"),
        (f"{WQ}.weight", (3, 5), -9, r"\[3, 5\] is -9"),
        ("output.weight", (0, 0), 100, r"output\.weight\[0, 0\] is 100"),
        (f"{WQ}.scales", (2, 1), math.nan, rf"{WQ}\.scales\[2, 1\] is nan, expected a finite"),
        (f"{WQ}.scales", (2, 1), math.inf, "is inf"),
        (f"{WQ}.scales", (2, 1), 0.0, "is 0"),
        ("tok_embeddings.scales", (7,), 0.0, r"tok_embeddings\.scales\[7\] is 0"),
        ("tok_embeddings.scales", (7,), -0.5, "is -0.5, expected a positive"),
        (
            f"{WQ}.zeros",
            (1, 0),
            3.0,
            rf"{WQ}\.zeros\[1, 0\] is 3, expected 0: only symmetric .* DIR --requantize-asym",
        ),
        ("norm.weight", (9,), math.nan, r"norm\.weight\[9\] is nan"),
    ],
)
def test_wrong_values_are_named(tmp_path, file, name, index, value, message):
    tensors = tiny.int4_tensors()
    tensors[f"{WQ}.zeros"] = torch.zeros_like(tensors[f"{WQ}.scales"])
    tensors[name][index] = value
    checkpoint = open_checkpoint(tiny.write_checkpoint(tmp_path, tensors, file=file))
    with pytest.raises(InputError, match=message) as caught:
        checkpoint.check_values()
    assert file in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{WQ}.weight": None}, rf"tensor {WQ}\.weight is missing"),
        ({f"{WQ}.scales": None}, rf"tensor {WQ}\.scales is missing"),
        ({"surprise": torch.zeros(3)}, "tensor surprise is not known"),
        ({"layers.2.ffn_norm.weight": torch.zeros(64)}, "holds 3 layers.*n_layers is 2"),
        ({f"{WQ}.weight": torch.zeros(64, 32, dtype=torch.int8)}, r"expected \[64, 64\]"),
        (
            {f"{WQ}.weight": torch.zeros(64, 64)},
            r"is float32, expected int8; .*without \S+wq\.scales",
        ),
        ({f"{WQ}.scales": torch.ones(64, 2, dtype=torch.int32)}, "is int32, expected float32 or"),
        ({f"{WQ}.scales": torch.ones(64, 1)}, r"\[64, 1\], expected \[64, 2\].*group size"),
        ({f"{WQ}.scales": torch.ones(2, 64)}, r"\[2, 64\], expected \[64, 2\]"),
        ({f"{WQ}.zeros": torch.zeros(64)}, r"zeros has shape \[64\], expected \[64, 2\]"),
        ({"output.weight": None}, r"output\.scales has no output\.weight"),
        ({"output.scales": torch.ones(272, 4)}, r"output\.scales has shape \[272, 4\]"),
        ({"output.scales": None}, r"output\.weight is int8, expected float32"),
        ({"norm.weight": torch.zeros(64, dtype=torch.int8)}, r"norm\.weight is int8"),
        ({"norm.weight": torch.zeros(65)}, r"norm\.weight has shape \[65\], expected \[64\]"),
    ],
)
def test_wrong_structure_is_named(tmp_path, changes, message):
    tensors = {**tiny.int4_tensors(), **changes}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(InputError, match=message):
        open_checkpoint(tiny.write_checkpoint(tmp_path, tensors))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dim": None}, "'dim' is missing"),
        ({"n_layers": 3}, "holds 2 layers.*n_layers is 3"),
        ({"n_layers": 10**15}, "holds 2 layers"),
        ({"n_heads": 8, "n_kv_heads": 4}, "shape"),
        ({"hidden_dim": 128}, r"w1\.weight has shape \[96, 64\], expected \[128, 64\]"),
        ({"vocab_size": 300}, "tok_embeddings"),
        ({"attention_qkv_bias": True}, r"bias.*missing"),
        ({"use_qk_norm": True}, r"k_norm_fn\.weight.*missing"),
        ({"quantization_args": {"group_size": 64}}, "group size"),
        ({"quantization_args": {"group_size": 48}}, "48.*expected one of 16, 32, 64, 128, 256"),
        ({"quantization_args": {"group_size": "32"}}, "'32'"),
        ({"quantization_args": {"group_size": True}}, "True"),
        ({"lora_args": {"rank": 16}}, "lora_args"),
    ],
)
def test_wrong_params_are_named(tmp_path, params, message):
    with pytest.raises(InputError, match=message):
        open_checkpoint(tiny.write_checkpoint(tmp_path, **params))


def test_a_group_size_that_no_kernel_has(tmp_path):
    tensors = tiny.int4_tensors(group_size=8)
    with pytest.raises(InputError, match="the group size is 8 "):
        open_checkpoint(tiny.write_checkpoint(tmp_path, tensors, quantization_args=None))


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_checkpoint(tmp_path / "absent")
    with pytest.raises(InputError, match=r"expected one \.safetensors or \.pth"):
        open_checkpoint(tmp_path)
    folder = tiny.write_checkpoint(tmp_path / "a")
    (folder / "params.json").unlink()
    with pytest.raises(InputError, match=r"params\.json.*--params"):
        open_checkpoint(folder)


def test_several_files_need_a_choice(tmp_path):
    tiny.write_checkpoint(tmp_path, file="one.pth")
    tiny.write_checkpoint(tmp_path, file="two.pth")
    with pytest.raises(InputError, match=r"found one\.pth, two\.pth"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path / "two.pth").group_size == 32


def test_a_gguf_is_not_a_checkpoint(tmp_path):
    path = ggufs.write_gguf(tmp_path / "model.gguf")
    with pytest.raises(InputError, match="quatrain quantize"):
        open_checkpoint(path)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("container", ["zip", "bare"])
def test_a_pth_that_would_run_code_does_not(tmp_path, container):
    marker = tmp_path / "ran"
    folder = tiny.write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    content = {"tok_embeddings.weight": Malicious(marker)}
    if container == "zip":
        torch.save(content, folder / "evil.pth")
    else:
        (folder / "evil.pth").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"evil\.pth"):
        open_checkpoint(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(3)], "holds a list"),
        ({}, "holds a dict"),
        ({"model": {"nested": torch.zeros(3)}}, "is a floating-point model"),
        ({3: torch.zeros(3)}, "3 is the name of a tensor, expected a string"),
        ({"x": 3}, "'x' is a int, expected a tensor"),
        ({"x": torch.zeros(3).to_sparse()}, "sparse"),
        ({"x": torch.zeros(3, device="meta")}, "meta"),
    ],
)
def test_a_pth_of_anything_but_tensors_is_refused(tmp_path, content, message):
    folder = tiny.write_checkpoint(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "m.pth")
    with pytest.raises(InputError, match=rf"m\.pth.*{message}"):
        open_checkpoint(folder)


def test_a_pth_before_pytorch_1_6_is_refused(tmp_path):
    folder = tiny.write_checkpoint(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(tiny.int4_tensors(), folder / "m.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"torch\.save"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("zero_to_fp32.py", r"python zero_to_fp32\.py \. OUTPUT-DIR"),
        ("pytorch_model_fsdp_0/.metadata", r"dcp_to_torch .*/pytorch_model_fsdp_0 .*/model\.pt`"),
        (".metadata", r"dcp_to_torch \S+ \S+/model\.pt`"),
    ],
)
def test_weights_that_training_left_in_parts(tmp_path, file, remedy):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text("")
    with pytest.raises(InputError, match=remedy):
        open_float_model(folder)
