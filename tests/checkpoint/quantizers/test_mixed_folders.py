"""Folders whose linears are not all int4 alike: some left in floating point, of other bit widths or
groups; and quantizers that pack as another one does, or have zero points alone."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny
from tests.support.models.peers import change_config
from tests.support.paths import WRITTEN_ELSEWHERE
from transformers.integrations import metal_quantization

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.checkpoint.quantizers.mlx import METAL, MLX
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.quantize.convert_options import ConvertOptions
from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups
from quatrain.quantize.pipeline import convert_model
from quatrain.quantize.requantize import Requantization

W2, DOWN = "layers.0.feed_forward.w2", "model.layers.0.mlp.down_proj"


def symmetric_only() -> Requantization:
    """What `quatrain convert` rounds without --requantize-asymmetric."""
    return Requantization(asymmetric=False)


def changed(folder: Path, module: str, parts: dict[str, torch.Tensor]) -> Path:
    """`folder` with other tensors for the linear `module`."""
    file = folder / "model.safetensors"
    tensors = {
        name: tensor
        for name, tensor in load_file(file).items()
        if name.rpartition(".")[0] != module
    }
    made = {f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    save_file(tensors | made, file)
    return folder


def weight_of(checkpoint, name: str) -> torch.Tensor:
    values, scales = (checkpoint.tensors[f"{name}.{part}"] for part in ("weight", "scales"))
    return (values.unflatten(1, (scales.shape[1], -1)) * scales[..., None].float()).flatten(1)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_a_linear_left_in_floating_point_is_rounded_by_name(tmp_path, method):
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)).half()
    folder = changed(folders.write_quantized(tmp_path / "in", method), DOWN, {"weight": weight})
    with pytest.raises(
        InputError,
        match=rf"{DOWN} is in floating point, while other linears are int4.*quatrain convert",
    ):
        open_checkpoint(folder)
    checkpoint = open_checkpoint(folder, round_again=symmetric_only())
    checkpoint.check_values()
    values, scales = quantize_groups(weight.float(), 32)
    assert torch.equal(checkpoint.tensors[f"{W2}.weight"], values)
    assert torch.equal(checkpoint.tensors[f"{W2}.scales"], scales)

    report = convert_model(folder, tmp_path / "out")
    assert [(one.name, one.was) for one in report.rounded_linears] == [(DOWN, "in floating point")]
    rounded = (values.unflatten(1, (3, 32)) * scales[..., None]).flatten(1)
    error = float((rounded - weight).norm() / weight.float().norm())
    assert report.rounded_linears[0].relative_rms_error == pytest.approx(error, rel=1e-3)
    manifest = json.loads((tmp_path / "out" / "quatrain_manifest.json").read_text())
    assert manifest["rounded"]["linears"].keys() == {DOWN}


@pytest.mark.parametrize("shape", [(), (96,), (64, 95), (1, 64, 96)])
def test_a_linear_left_in_floating_point_of_another_shape(tmp_path, shape):
    folder = changed(folders.write_quantized(tmp_path, "gptq"), DOWN, {"weight": torch.ones(shape)})
    found = rf"{DOWN}\.weight has shape {re.escape(str(list(shape)))}, expected \[64, 96\]"
    with pytest.raises(InputError, match=found):
        open_checkpoint(folder, round_again=symmetric_only())


def test_a_linear_that_groups_of_64_do_not_divide(tmp_path):
    """Why quantizers leave one out: the others' groups become two of 32 each."""
    expected = folders.expected_tensors()
    folder = folders.write_quantized(tmp_path, "gptq")
    for name in folders.layer_linears(expected):
        values, scales = (expected[f"{name}.{part}"] for part in ("weight", "scales"))
        module = tiny.renamed(f"{name}.x", tiny.HF_NAMES, "model.layers").removesuffix(".x")
        wide = {"weight": torch.ones(64, 96).half()}
        if not name.endswith("w2"):
            wide = folders.pack_gptq(values, scales[:, :1])
        changed(folder, module, wide)
    checkpoint = open_checkpoint(folder, round_again=symmetric_only())
    checkpoint.check_values()
    assert checkpoint.group_size == 32
    name = "layers.1.feed_forward.w1"
    assert torch.equal(checkpoint.tensors[f"{name}.weight"], expected[f"{name}.weight"])
    scales = expected[f"{name}.scales"][:, :1].expand(-1, 2)
    assert torch.equal(checkpoint.tensors[f"{name}.scales"], scales)


def eight_bits(method: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """`weight` [N, K] in 8 bits with a scale a row, and what that stands for under "read"."""
    values, scales = quantize_channels(weight)
    numbers = values.long() + 128
    words = (numbers.unflatten(1, (-1, 4)) << torch.arange(0, 32, 8)).sum(-1)
    words = (words - ((words >> 31) << 32)).int()
    read = {"read": values * scales[:, None]}
    if method == "compressed-tensors":
        shape = torch.tensor(values.shape)
        return read | {
            "weight_packed": words, "weight_scale": scales[:, None], "weight_shape": shape,
        }  # fmt: skip
    middle = 127 if method == "gptq" else 128
    zeros = torch.full(
        (1, len(values) // 4), middle * 0x01010101 - (0 if middle < 128 else 1 << 32)
    )
    return read | {
        "qweight": words.t(), "qzeros": zeros.int(), "scales": scales[None],
        "g_idx": torch.zeros(weight.shape[1], dtype=torch.int32),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "others"),
    [
        ("gptq", []),
        ("gptq_v2", []),
        ("compressed-tensors", ["Linear"]),
        ("compressed-tensors", ["re:.*proj"]),
    ],
)
def test_a_linear_of_8_bits_is_rounded_and_named_so(tmp_path, method, others):
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    parts = eight_bits(method, weight)
    read = parts.pop("read")
    folder = changed(folders.write_quantized(tmp_path / "in", method), DOWN, parts)
    if method == "compressed-tensors":
        four = folders.SETTINGS[method]["config_groups"]["group_0"] | {"targets": others}
        # What names the linear counts before patterns for it, and those before its class.
        of_it = DOWN if others != ["Linear"] else "re:.*layers[.]0.*down_proj"
        eight = {"targets": [of_it], "weights": {"num_bits": 8}}
        settings = {"config_groups": {"group_0": four, "group_1": eight}}
        change_config(folder, quantization_config=folders.SETTINGS[method] | settings)
    with pytest.raises(InputError, match=rf"{DOWN} is 8 bits.*quatrain convert"):
        open_checkpoint(folder)
    checkpoint = open_checkpoint(folder, round_again=symmetric_only())
    checkpoint.check_values()
    expected, scales = quantize_groups(read, 32)
    assert torch.equal(checkpoint.tensors[f"{W2}.weight"], expected)
    assert torch.equal(checkpoint.tensors[f"{W2}.scales"], scales)
    report = convert_model(folder, tmp_path / "out")
    assert [(one.name, one.was) for one in report.rounded_linears] == [(DOWN, "8 bits")]


def test_torchao_linears_of_8_bits_and_in_floating_point(tmp_path):
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {key: value for key, value in tiny.HUGGING_FACE.items() if key != "model_type"}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**fields))
    for suffix, dtype in (("down_proj", torch.int8), ("up_proj", torch.int4)):
        quantize_(
            model,
            IntxWeightOnlyConfig(weight_dtype=dtype, granularity=PerGroup(32)),
            lambda _, name, suffix=suffix: name.endswith(suffix),
        )
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for pickled in (True, False):
        folder = tmp_path / str(pickled)
        folder.mkdir()
        if pickled:
            torch.save(state, folder / "pytorch_model.bin")
        else:
            plain, metadata = flatten_tensor_state_dict(state)
            save_file(plain, folder / "model.safetensors", metadata)
        (folder / "config.json").write_text(json.dumps(tiny.HUGGING_FACE))
        with pytest.raises(InputError, match=r"down_proj is 8 bits"):
            open_checkpoint(folder)
        checkpoint = open_checkpoint(folder, round_again=symmetric_only())
        checkpoint.check_values()
        down = state[f"{DOWN}.weight"].dequantize().float()
        assert torch.equal(checkpoint.tensors[f"{W2}.weight"], quantize_groups(down, 32)[0])
        query = state["model.layers.0.self_attn.q_proj.weight"]
        found = checkpoint.tensors["layers.0.attention.wq.weight"]
        assert torch.equal(found, quantize_groups(query, 32)[0])


def int_quantized(folder: Path, inputs: dict | None) -> Path:
    """W4A8 as compressed-tensors stores it: the integers as int8."""
    expected = folders.expected_tensors()
    folder = folders.write_quantized(folder, "compressed-tensors")
    for name in folders.layer_linears(expected):
        module = tiny.renamed(f"{name}.x", tiny.HF_NAMES, "model.layers").removesuffix(".x")
        parts = {"weight": expected[f"{name}.weight"], "weight_scale": expected[f"{name}.scales"]}
        changed(folder, module, parts)
    group = folders.SETTINGS["compressed-tensors"]["config_groups"]["group_0"]
    settings = {
        "format": "int-quantized",
        "config_groups": {"group_0": group | {"input_activations": inputs}},
    }
    said = folders.SETTINGS["compressed-tensors"] | settings
    return change_config(folder, quantization_config=said)


PER_TOKEN = {
    "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True,
}  # fmt: skip


@pytest.mark.parametrize("inputs", [PER_TOKEN, None])
def test_w4a8_of_compressed_tensors_is_read(tmp_path, inputs):
    checkpoint = open_checkpoint(int_quantized(tmp_path, inputs))
    checkpoint.check_values()
    expected = folders.expected_tensors()
    assert set(checkpoint.tensors) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.tensors[name], tensor), name


@pytest.mark.parametrize(
    ("kind", "bits", "strategy"), [("float", 8, "token"), ("int", 4, "token"), ("int", 8, "tensor")]
)
def test_activations_that_are_rounded_to_others_as_it_runs_are_said(tmp_path, kind, bits, strategy):
    """W4AFP8, W4A4 and W4A8 per tensor: the weights are int4, and nothing was calibrated."""
    others = {"type": kind, "num_bits": bits, "strategy": strategy}
    folder = int_quantized(tmp_path, PER_TOKEN | others)
    checkpoint = open_checkpoint(folder)
    assert torch.equal(
        checkpoint.tensors[f"{W2}.weight"], folders.expected_tensors()[f"{W2}.weight"]
    )
    assert len(checkpoint.notes) == 1
    assert (
        f"quantizes activations to {kind}{bits} per {strategy} at run time" in checkpoint.notes[0]
    )


def test_linears_in_fp8_beside_int4_are_rounded(tmp_path):
    """As llm-compressor's examples make them: one group of int4, one of FP8."""
    folder = folders.write_quantized(tmp_path, "compressed-tensors")
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    scale = weight.abs().amax(1, keepdim=True) / 448
    in_float8 = (weight / scale).to(torch.float8_e4m3fn)
    changed(folder, DOWN, {"weight": in_float8, "weight_scale": scale})
    groups = dict(folders.SETTINGS["compressed-tensors"]["config_groups"])
    groups["group_1"] = {
        "targets": [DOWN], "format": "float-quantized",
        "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "float", "dynamic": True},
    }  # fmt: skip
    settings = {"config_groups": groups, "format": "mixed-precision"}
    groups["group_0"] = {"format": "pack-quantized"} | groups["group_0"]
    change_config(folder, quantization_config=folders.SETTINGS["compressed-tensors"] | settings)
    with pytest.raises(InputError, match=rf"{DOWN} is in floating point.*quatrain convert"):
        open_checkpoint(folder)
    rounded = symmetric_only()
    checkpoint = open_checkpoint(folder, round_again=rounded)
    expected = quantize_groups(in_float8.float() * scale, folders.GROUP)
    assert torch.equal(checkpoint.tensors[f"{W2}.weight"], expected[0])
    assert checkpoint.notes == ()
    plain = open_checkpoint(folders.write_quantized(tmp_path / "plain", "compressed-tensors"))
    name = "layers.0.feed_forward.w1.weight"
    assert torch.equal(checkpoint.tensors[name], plain.tensors[name])


@pytest.mark.parametrize(
    ("strategy", "shape", "columns"), [("tensor", [1], 96), ("block", [4, 3], 32)]
)
@pytest.mark.parametrize("asymmetric", [False, True])
def test_scales_that_rows_share(tmp_path, strategy, shape, columns, asymmetric):
    values = folders.expected_tensors()[f"{W2}.weight"]
    scale = torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.5
    parts = {"weight": values, "weight_scale": scale}
    if asymmetric:
        parts["weight_zero_point"] = torch.full(shape, 3, dtype=torch.int8)
    folder = changed(int_quantized(tmp_path, None), DOWN, parts)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    weights = {"num_bits": 4, "type": "int", "strategy": strategy}
    config["config_groups"]["group_1"] = {"targets": ["re:.*down_proj"], "weights": weights}
    change_config(folder, quantization_config=config)
    checkpoint = open_checkpoint(folder, round_again=Requantization() if asymmetric else None)
    whole = scale.view(-1, len(scale.flatten()) // len(scale)).repeat_interleave(
        64 // len(scale), 0
    )
    expected = (values - 3 * asymmetric) * whole.repeat_interleave(columns, 1)
    error = (weight_of(checkpoint, W2) - expected).norm() / expected.norm()
    assert error < 0.15 if asymmetric else error == 0


def test_calibrated_scales_of_activations_are_not_used_and_that_is_said(tmp_path):
    """The weights are those of W4A16; a program rounds activations by their own range."""
    folder = int_quantized(tmp_path, PER_TOKEN | {"dynamic": False, "strategy": "tensor"})
    stored = load_file(folder / "model.safetensors")
    linears = [name.removesuffix("_scale") for name in stored if name.endswith(".weight_scale")]
    for linear in (name.removesuffix("weight") for name in linears):
        stored[f"{linear}input_scale"] = torch.rand(1)
        stored[f"{linear}input_zero_point"] = torch.zeros(1, dtype=torch.int8)
    save_file(stored, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    for name, expected in folders.expected_tensors().items():
        assert torch.equal(checkpoint.tensors[name], expected), name
    assert len(checkpoint.notes) == 1
    assert "to int8 per tensor, with calibrated scales, at run time" in checkpoint.notes[0]


@pytest.mark.parametrize(
    ("packing", "method"),
    [
        ("auto_round:auto_gptq", "gptq"),
        ("auto_round:gptqmodel", "gptq_v2"),
        ("auto_round", "gptq_v2"),
        ("auto_round:auto_awq", "awq"),
        ("autoround:exllamav2", "gptq_v2"),
        ("auto_round:gptq:exllamav2", "gptq"),
        ("auto_round:awq:gemm", "awq"),
        ("auto", "gptq"),
    ],
)
@pytest.mark.parametrize(
    ("name", "field"), [("auto-round", "packing_format"), ("intel/auto-round", "backend")]
)
def test_auto_round_is_read_as_it_was_packed(tmp_path, packing, method, name, field):
    folder = folders.write_quantized(tmp_path, method)
    settings = {"quant_method": name, "bits": 4, "group_size": 32, field: packing}
    checkpoint = open_checkpoint(change_config(folder, quantization_config=settings))
    checkpoint.check_values()
    for expected, tensor in folders.expected_tensors().items():
        assert torch.equal(checkpoint.tensors[expected], tensor), expected


def test_a_packing_of_auto_round_that_is_not_read(tmp_path):
    folder = folders.write_quantized(tmp_path, "gptq")
    settings = {"quant_method": "auto-round", "bits": 4, "packing_format": "auto_round:fp8"}
    with pytest.raises(InputError, match=r"packed it as 'auto_round:fp8'.*auto_gptq"):
        open_checkpoint(change_config(folder, quantization_config=settings))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_mlx_numbers_are_read_as_mlx_reads_them(bits):
    made = load_file(WRITTEN_ELSEWHERE / "mlx.safetensors")
    parts = {
        name: StoredTensor(tuple(part.shape), part.dtype, lambda part=part: part)
        for name in MLX.required
        if (part := made[f"{bits}.{name}"]) is not None
    }
    linear = MLX.read(Parts(parts, "f", "file"), {"bits": bits, "group_size": 64})
    assert linear.zeros is not None
    groups = linear.values().float().view(8, 2, 64) - linear.zeros()[..., None]
    read = (groups * linear.scales()[..., None]).view(8, 128)
    assert torch.allclose(read, made[f"{bits}.read"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_transformers_numbers_for_metal_are_read_as_it_reads_them(bits):
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(bits))
    made = metal_quantization._affine_quantize_tensor(weight, 32, bits)
    parts = {
        name: StoredTensor(tuple(part.shape), part.dtype, lambda part=part: part)
        for name, part in zip(METAL.required, made, strict=True)
    }
    linear = METAL.read(Parts(parts, "f", "file"), {"bits": bits, "group_size": 32})
    assert linear.zeros is not None
    groups = linear.values().float().unflatten(1, (-1, 32)) - linear.zeros()[..., None]
    read = (groups * linear.scales()[..., None]).flatten(1)
    expected = metal_quantization._affine_dequantize_tensor(*made, 32, bits)
    torch.testing.assert_close(read, expected, rtol=1e-5, atol=1e-6)


def test_a_folder_of_transformers_for_metal(tmp_path):
    tensors = {}
    for name, weight in tiny.float_tensors().items():
        theirs = tiny.renamed(name, tiny.HF_NAMES, "model.layers")
        tensors[theirs] = weight
        if weight.ndim == 2 and "layers." in name:
            parts = metal_quantization._affine_quantize_tensor(weight, 32, 4)
            module = theirs.removesuffix("weight")
            tensors |= zip((theirs, f"{module}scales", f"{module}qbiases"), parts, strict=True)
    folder = tiny.write_hugging_face(tmp_path)
    save_file(tensors, folder / "model.safetensors")
    settings = {"quant_method": "metal", "bits": 4, "group_size": 32}
    change_config(folder, quantization_config=settings)
    with pytest.raises(InputError, match=r"METAL.*--requantize-asymmetric"):
        open_checkpoint(folder)
    checkpoint = open_checkpoint(folder, round_again=Requantization())
    weight = tiny.float_tensors()[f"{W2}.weight"]
    assert (weight_of(checkpoint, W2) - weight).norm() / weight.norm() < 0.15


def write_mlx(folder: Path, bits: int = 4) -> tuple[Path, dict[str, torch.Tensor]]:
    """(a folder as mlx-lm writes one, tied and with its embedding quantized too; what its
    matrices stand for, by Meta name)."""
    folder.mkdir(parents=True, exist_ok=True)
    named, read = {}, {}
    for name, weight in tiny.float_tensors(tied=True).items():
        theirs = tiny.renamed(name, tiny.HF_NAMES, "model.layers")
        if weight.ndim == 1:
            named[theirs] = weight
            continue
        groups = weight.unflatten(1, (-1, 32))
        low, high = groups.aminmax(dim=-1)
        scale = (high - low) / (2**bits - 1)
        numbers = ((groups - low[..., None]) / scale[..., None]).round().long()
        read[name] = (numbers * scale[..., None] + low[..., None]).flatten(1)
        words = numbers.view(len(weight), -1, 32 // bits) << torch.arange(0, 32, bits)
        words = words.sum(-1)
        module = theirs.removesuffix("weight")
        named[theirs] = (words - ((words >> 31) << 32)).int().view(torch.uint32)
        named |= {f"{module}scales": scale, f"{module}biases": low}
    save_file(named, folder / "model.safetensors", {"format": "mlx"})
    said = {"quantization": {"group_size": 32, "bits": bits}, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(tiny.HUGGING_FACE | said))
    return folder, read


@pytest.mark.parametrize("bits", [4, 8])
def test_mlx_is_named_and_rounded_where_that_is_asked_for(tmp_path, bits):
    folder, read = write_mlx(tmp_path / "in", bits)
    assert is_quantized(folder)
    with pytest.raises(InputError, match=r"is in the format MLX.*--requantize-asymmetric"):
        convert_model(folder, tmp_path / "out")
    options = ConvertOptions(requantize_asymmetric=True)
    report = convert_model(folder, tmp_path / "out", options)
    assert report.rounded == len(read) == 15
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == (f"int{bits}", "tied")
    for name, weight in read.items():
        found = weight_of(checkpoint, name.removesuffix(".weight"))
        assert float((found - weight).norm() / weight.norm()) < (0.12 if bits == 4 else 0.1)


@pytest.mark.parametrize(("bits", "said"), [(4, 8), (4, 3), (8, 4)])
def test_bits_of_mlx_that_its_tensors_contradict(tmp_path, bits, said):
    folder = write_mlx(tmp_path / "in", bits)[0]
    change_config(folder, quantization={"group_size": 32, "bits": said})
    with pytest.raises(InputError, match=f"has {bits} bits in groups of 32, .* says {said};"):
        open_checkpoint(folder, round_again=Requantization())


def test_a_tied_output_layer_that_is_the_quantized_embedding_once_more(tmp_path):
    """As mlx-vlm saves a Gemma 3."""
    folder, _ = write_mlx(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    table = {name: tensor for name, tensor in tensors.items() if "embed_tokens" in name}
    again = {name.replace("model.embed_tokens", "lm_head"): t.clone() for name, t in table.items()}
    save_file(tensors | again, folder / "model.safetensors", {"format": "mlx"})
    checkpoint = open_checkpoint(folder, round_again=Requantization())
    assert (checkpoint.output_kind, checkpoint.notes) == ("tied", ())
    again["lm_head.biases"] += 1
    save_file(tensors | again, folder / "model.safetensors", {"format": "mlx"})
    checkpoint = open_checkpoint(folder, round_again=Requantization())
    assert checkpoint.output_kind == "int4" and "holds other values" in checkpoint.notes[0]


@pytest.mark.parametrize("inside", [None, {"group_size": 32, "bits": 4}, "exceptions"])
def test_mlx_settings_by_the_names_of_a_model_that_sees(tmp_path, inside):
    """As mlx-vlm writes them: of a module whose bits differ, under the whole model's name; and as
    AutoRound does, in text_config once more, by the text model's names or without exceptions."""
    folder, read = write_mlx(tmp_path / "in", bits=8)
    tensors = {
        f"language_model.{name}": tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    sees = {"vision_tower.patches.weight": torch.ones(2, 2)}
    save_file(tensors | sees, folder / "model.safetensors", {"format": "mlx"})
    modules = {name.rpartition(".")[0] for name in tensors if name.endswith(".scales")}
    settings = {"group_size": 32, "bits": 4} | {key: {"bits": 8} for key in modules}
    stated = {"text_config": dict(tiny.HUGGING_FACE), "quantization": settings}
    if inside == "exceptions":
        del stated["quantization"]
        inside = {key.removeprefix("language_model."): own for key, own in settings.items()}
    if inside:
        stated["text_config"]["quantization"] = inside
    change_config(folder, [*tiny.HUGGING_FACE, "quantization"], model_type="llava", **stated)
    checkpoint = open_checkpoint(folder, round_again=Requantization())
    name = "layers.0.feed_forward.w2"
    error = weight_of(checkpoint, name) - read[f"{name}.weight"]
    assert float(error.norm() / read[f"{name}.weight"].norm()) < 0.12


ATTENTION = {
    "targets": ["LlamaAttention"],
    "weights": None,
    "input_activations": {"num_bits": 8, "type": "float", "strategy": "attn_head"},
}


def test_a_group_of_what_attention_reads_has_no_weights(tmp_path):
    """As llm-compressor writes for attention in FP8: its linears are in another group."""
    folder = folders.write_quantized(tmp_path, "compressed-tensors")
    said = folders.SETTINGS["compressed-tensors"]
    for groups in (said["config_groups"], {}):
        stated = said | {"config_groups": {"attention": ATTENTION, **groups}}
        change_config(folder, quantization_config=stated)
        if groups:
            checkpoint = open_checkpoint(folder)
            expected = folders.expected_tensors()[f"{W2}.weight"]
            assert torch.equal(checkpoint.tensors[f"{W2}.weight"], expected)
            assert "quantizes activations to float8 per attn_head" in " ".join(checkpoint.notes)
            continue
        with pytest.raises(InputError, match="no 'config_groups' of weights; quantize the orig"):
            open_checkpoint(folder)


def test_a_group_for_embeddings_before_the_linears(tmp_path):
    """Whose 8 bits are not the linears'."""
    folder = folders.write_quantized(tmp_path, "compressed-tensors")
    groups = folders.SETTINGS["compressed-tensors"]["config_groups"]
    tables = {"targets": ["Embedding"], "weights": {"num_bits": 8}}
    settings = {"config_groups": {"group_1": tables, **groups}}
    change_config(folder, quantization_config=folders.SETTINGS["compressed-tensors"] | settings)
    checkpoint = open_checkpoint(folder)
    assert torch.equal(
        checkpoint.tensors[f"{W2}.weight"], folders.expected_tensors()[f"{W2}.weight"]
    )


@pytest.mark.parametrize("prefix", ["", "language_model."])
def test_a_floating_point_mode_of_mlx_beside_affine_matrices(tmp_path, prefix):
    """As mlx-lm leaves routers in 8 bits: what states no mode is affine."""
    folder, read = write_mlx(tmp_path, bits=8)
    made = load_file(WRITTEN_ELSEWHERE / "float4.safetensors")
    name, module = "layers.0.attention.wk.weight", "model.layers.0.self_attn.k_proj"
    changed(folder, module, {part: made[f"mxfp4.{part}"] for part in ("weight", "scales")})
    read[name] = made["mxfp4.read"]
    tensors = load_file(folder / "model.safetensors")
    affine = {n.removesuffix(".biases"): {"bits": 8} for n in tensors if n.endswith(".biases")}
    settings = {prefix + of_module: own for of_module, own in affine.items()}
    save_file({prefix + n: tensor for n, tensor in tensors.items()}, folder / "model.safetensors")
    change_config(folder, quantization=settings | {"group_size": 32, "bits": 4, "mode": "mxfp4"})
    assert not is_quantized(folder)
    model = open_float_model(folder)
    for name, weight in read.items():
        torch.testing.assert_close(model.tensors[name], weight, rtol=1e-5, atol=1e-6)
    assert "its matrices are in FP4 and affine integers." in model.notes[0]
    with pytest.raises(InputError, match="run `quatrain quantize"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "left",
    [
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "auto-round", "packing_format": "mlx", "bits": 4},
        {"group_size": 32, "bits": 8},
    ],
)
def test_mlx_of_a_model_that_says_how_it_was_quantized_before(tmp_path, left):
    folder, read = write_mlx(tmp_path)
    change_config(folder, quantization_config=left)
    assert is_quantized(folder)
    found = weight_of(open_checkpoint(folder, round_again=Requantization()), W2)
    assert float((found - read[f"{W2}.weight"]).norm() / found.norm()) < 0.12


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_a_group_as_wide_as_the_row(tmp_path, method):
    """group_size -1, on rows of 64 and of 96: 32 divides both."""
    expected = folders.expected_tensors()
    folder = folders.write_quantized(tmp_path, method, settings={"group_size": -1})
    for name in folders.layer_linears(expected):
        module = tiny.renamed(f"{name}.x", tiny.HF_NAMES, "model.layers").removesuffix(".x")
        values, scales = (expected[f"{name}.{part}"] for part in ("weight", "scales"))
        changed(folder, module, folders.PACK[method](values, scales[:, :1]))
    checkpoint = open_checkpoint(folder)
    checkpoint.check_values()
    assert checkpoint.group_size == 32
    for name in folders.layer_linears(expected):
        scales = expected[f"{name}.scales"][:, :1].expand_as(expected[f"{name}.scales"])
        assert torch.equal(checkpoint.tensors[f"{name}.scales"], scales)
        assert torch.equal(checkpoint.tensors[f"{name}.weight"], expected[f"{name}.weight"])


def test_an_embedding_of_one_int4_group_a_row_is_int4(tmp_path):
    """[N, 1] scales are int8's by row, unless the checkpoint says that the values are int4."""
    params = {"dim": 32, "head_dim": 16, "n_heads": 2, "n_kv_heads": 2}
    tensors = tiny.int4_tensors(embedding="int4", **params)
    assert tensors["tok_embeddings.scales"].shape == (272, 1)
    said = {"scheme": "8da4w", "group_size": 32, "embedding": "int4", "output": "int4"}
    folder = tiny.write_checkpoint(tmp_path, tensors, quantization_args=said, **params)
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int4", "int4")
    # Of which one says it computes weight-only, and computes what the integers stand for.
    backbone = build_backbone(
        checkpoint.config, checkpoint.tensors, Scheme.WEIGHT_ONLY, group_size=32
    )
    floats = {name: t for name, t in tensors.items() if t.dtype == torch.float32 and t.ndim == 1}
    for name in tensors:
        if name.endswith(".scales"):
            linear = name.removesuffix(".scales")
            floats[f"{linear}.weight"] = weight_of(checkpoint, linear)
    expected = build_backbone(checkpoint.config, floats)
    tokens = torch.tensor([[5, 6, 7]])
    found = backbone(tokens, torch.tensor([0]))
    assert torch.allclose(found, expected(tokens, torch.tensor([0])), atol=1e-5)


@pytest.mark.parametrize("group", [8, 16, 48])
def test_groups_that_xnnpack_does_not_read_are_rounded_by_name(tmp_path, group):
    """Narrow ones, and ones that are no whole number of 32; Vulkan takes whole numbers of 16."""
    folder = folders.write_quantized(tmp_path / "in", "compressed-tensors")
    values = torch.randint(-8, 8, (64, 96), generator=torch.Generator().manual_seed(1)).to(
        torch.int8
    )
    scales = torch.linspace(0.1, 0.4, 64 * 96 // group).view(64, -1)
    changed(folder, DOWN, folders.pack_compressed(values, scales))
    weight = (values.unflatten(1, (-1, group)) * scales[..., None]).flatten(1)
    other = "layers.1.feed_forward.w2"
    if group % 16:
        with pytest.raises(InputError, match=rf"{DOWN} is in groups of {group} .*quatrain convert"):
            open_checkpoint(folder)
    else:
        kept = open_checkpoint(folder)
        kept.check_values()
        assert kept.group_size == 16 and torch.equal(weight_of(kept, W2), weight)
        plain = open_checkpoint(folders.write_quantized(tmp_path / "plain", "compressed-tensors"))
        assert torch.equal(weight_of(kept, other), weight_of(plain, other))
    checkpoint = open_checkpoint(folder, round_again=symmetric_only())
    checkpoint.check_values()
    assert checkpoint.group_size == 32
    rounded, its_scales = quantize_groups(weight, 32)
    assert torch.equal(checkpoint.tensors[f"{W2}.weight"], rounded)
    assert torch.equal(checkpoint.tensors[f"{W2}.scales"], its_scales)
    expected = folders.expected_tensors()[f"{other}.weight"]
    assert torch.equal(checkpoint.tensors[f"{other}.weight"], expected)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_a_model_all_in_groups_of_16(tmp_path, method):
    """Rounded where all kernels are to take it, and kept where Vulkan's are."""
    settings = {"group_size": 16} if method != "compressed-tensors" else {}
    folder = folders.write_quantized(tmp_path / "in", method, settings=settings)
    weights = {}
    for name in folders.layer_linears(folders.expected_tensors()):
        module = tiny.renamed(f"{name}.x", tiny.HF_NAMES, "model.layers").removesuffix(".x")
        values = folders.expected_tensors()[f"{name}.weight"]
        scales = torch.linspace(0.1, 0.4, values.numel() // 16).view(len(values), -1)
        changed(folder, module, folders.PACK[method](values, scales))
        weights[name] = (values.unflatten(1, (-1, 16)) * scales[..., None]).flatten(1)
    report = convert_model(folder, tmp_path / "out")
    assert {one.was for one in report.rounded_linears} == {"in groups of 16"}
    assert len(report.rounded_linears) == 14
    assert "with --backend vulkan such linears are kept" in report.notes[-1]
    report = convert_model(folder, tmp_path / "vulkan", ConvertOptions(backend="vulkan"))
    assert (report.group_size, report.rounded, report.rounded_linears) == (16, 0, [])
    assert not any("--backend vulkan" in note for note in report.notes)
    for path in (folder, tmp_path / "vulkan"):
        kept = open_checkpoint(path)
        assert all(torch.equal(weight_of(kept, name), weights[name]) for name in weights)


def test_an_embedding_of_gptqmodel_whose_groups_are_of_tokens(tmp_path):
    """Its `TorchQuantEmbeddings` takes the tokens for input features: qweight is [N / 8, K]."""
    folder = folders.write_quantized(tmp_path, "gptq_v2")
    values, scales = quantize_groups(torch.randn(64, 288), 32)
    table = folders.pack_gptq(values, scales, v2=True)
    changed(folder, "model.embed_tokens", table)
    tensors = load_file(folder / "model.safetensors")
    output = torch.randn(288, 64).half()
    save_file(tensors | {"lm_head.weight": output}, folder / "model.safetensors")
    change_config(folder, vocab_size=288)
    checkpoint = open_checkpoint(folder)
    expected = (values.unflatten(1, (-1, 32)) * scales[..., None]).flatten(1).t()
    torch.testing.assert_close(checkpoint.tensors["tok_embeddings.weight"], expected)
    assert "tok_embeddings.scales" not in checkpoint.tensors


def test_an_older_awq_states_its_settings_beside(tmp_path):
    folder = change_config(folders.write_quantized(tmp_path, "awq"), ["quantization_config"])
    with pytest.raises(InputError, match=r"no quantize_config\.json or quant_config\.json"):
        open_checkpoint(folder)
    said = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    (folder / "quant_config.json").write_text(json.dumps(said))
    assert is_quantized(folder)
    assert open_checkpoint(folder).group_size == 32


def test_compressed_tensors_under_its_first_name(tmp_path):
    folder = folders.write_quantized(tmp_path, "compressed-tensors")
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    change_config(folder, ["quantization_config"], compression_config=settings)
    assert is_quantized(folder)
    assert open_checkpoint(folder).group_size == 32


def test_settings_of_the_text_model_of_one_that_also_sees(tmp_path):
    folder = folders.write_quantized(tmp_path, "compressed-tensors")
    tensors = load_file(folder / "model.safetensors")
    save_file({f"language_model.{n}": t for n, t in tensors.items()}, folder / "model.safetensors")
    fields = json.loads((folder / "config.json").read_text())
    change_config(folder, list(fields), model_type="llava", text_config=fields)
    assert is_quantized(folder)
    assert open_checkpoint(folder).group_size == 32


@pytest.mark.parametrize("names", ["kv", ["kv"]])
def test_scales_of_a_quantized_cache_are_named(tmp_path, names):
    """One for keys and values is vLLM's first form."""
    folder = folders.write_quantized(tmp_path, "compressed-tensors")
    tensors = load_file(folder / "model.safetensors")
    scales = {f"model.layers.0.self_attn.{part}_scale": torch.ones(1) for part in names}
    save_file(tensors | scales, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert f"model.layers.0.self_attn.{names[0]}_scale" in checkpoint.notes[0]
    assert set(checkpoint.tensors) == set(folders.expected_tensors())


def layout_in_hugging_face_names(folder, zero=0.0):
    """As a model of transformers is saved once torchao's QAT converted it."""
    tensors = tiny.int4_tensors()
    zeros = {
        name.replace("scales", "zeros"): torch.full_like(tensor, zero)
        for name, tensor in tensors.items()
        if name.endswith("scales") and "layers." in name
    }
    return tiny.write_hugging_face(folder, tensors | zeros, dtype=None), tensors


def test_the_layout_under_hugging_faces_names(tmp_path):
    folder, expected = layout_in_hugging_face_names(tmp_path)
    checkpoint = open_checkpoint(folder)
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int4")
    for name, tensor in expected.items():
        found = checkpoint.tensors[name]
        assert found.dtype == tensor.dtype and torch.equal(found.view(tensor.shape), tensor), name
    with pytest.raises(InputError, match=r"is already quantized .*quatrain convert"):
        open_float_model(folder)


def test_the_layout_under_hugging_faces_names_with_zero_points(tmp_path):
    folder, expected = layout_in_hugging_face_names(tmp_path, 2.0)
    with pytest.raises(InputError, match=r"zeros\[0, 0\] is 2.*requantize-asymmetric"):
        open_checkpoint(folder).check_values()
    requantization = Requantization()
    found = open_checkpoint(folder, round_again=requantization)
    found.check_values()
    assert torch.equal(found.tensors["output.weight"], expected["output.weight"])
    assert len(requantization.errors) == 14
