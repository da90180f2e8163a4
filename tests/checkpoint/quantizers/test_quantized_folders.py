"""Quantized folders of other programs open as checkpoints, without loss, or say why not."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.errors import InputError
from quatrain.quantize.quantized_tensor import relative_rms
from quatrain.quantize.requantize import Requantization

METHODS = ["gptq", "gptq_v2", "awq", "compressed-tensors"]
WQ = "layers.0.attention.wq"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shards", [1, 3])
def test_values_and_scales_are_kept(tmp_path, method, shards):
    checkpoint = open_checkpoint(folders.write_quantized(tmp_path, method, shards=shards))
    checkpoint.check_values()
    expected = folders.expected_tensors()
    found = {name for name in checkpoint.tensors if not name.endswith(".zeros")}
    assert found == set(expected)
    for name, tensor in expected.items():
        assert checkpoint.tensors[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.tensors[name], tensor), name
    assert checkpoint.group_size == 32
    assert checkpoint.config.use_hf_rope
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("fp", "fp")
    assert checkpoint.params["eos_idx"] == [2, 0]
    assert checkpoint.params["quantization_args"]["group_size"] == 32


def test_opening_reads_no_data(tmp_path, monkeypatch):
    folder = folders.write_quantized(tmp_path, "gptq")
    monkeypatch.setattr("quatrain.checkpoint.quantizers.gptq.unpack_words", None)
    open_checkpoint(folder)


ASYMMETRIC = {WQ: torch.tensor([[3, 0]]).repeat(64, 1)}


@pytest.mark.parametrize("method", METHODS)
def test_asymmetric_is_refused_or_rounded_again(tmp_path, method):
    folder = folders.write_quantized(tmp_path, method, zeros=ASYMMETRIC)
    with pytest.raises(InputError, match=rf"{WQ}\.zeros\[0, 0\] is 3.*requantize-asymmetric"):
        open_checkpoint(folder).check_values()

    requantization = Requantization()
    checkpoint = open_checkpoint(folder, round_again=requantization)
    checkpoint.check_values()
    expected = folders.expected_tensors()
    assert set(requantization.errors) == {"model.layers.0.self_attn.q_proj"}
    assert 0 < relative_rms(requantization.errors.values()) < 0.2
    for name, tensor in expected.items():
        if not name.startswith(WQ):
            assert torch.equal(checkpoint.tensors[name].to(tensor.dtype), tensor), name
    values, scales = (expected[f"{WQ}.{part}"].float() for part in ("weight", "scales"))
    weight = (values.view(64, 2, 32) - ASYMMETRIC[WQ][..., None]) * scales[..., None]
    new = checkpoint.tensors[f"{WQ}.weight"].view(64, 2, 32)
    new = new * checkpoint.tensors[f"{WQ}.scales"][..., None]
    error = requantization.errors["model.layers.0.self_attn.q_proj"]
    assert float((new - weight).square().sum()) == pytest.approx(error.squared_error, rel=1e-4)
    assert float(weight.square().sum()) == pytest.approx(error.squared_weight, rel=1e-4)


def test_zero_points_of_older_compressed_tensors(tmp_path):
    """Which it did not pack."""
    folder = folders.write_quantized(tmp_path, "compressed-tensors", zeros=ASYMMETRIC)
    packed = open_checkpoint(folder, round_again=Requantization()).tensors
    expected = {name: packed[name].clone() for name in packed}
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("weight_zero_point")]:
        rows = tensors[name.replace("zero_point", "scale")].shape
        tensors[name] = torch.zeros(rows, dtype=torch.int8)
        if name == "model.layers.0.self_attn.q_proj.weight_zero_point":
            tensors[name] = ASYMMETRIC[WQ].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    found = open_checkpoint(folder, round_again=Requantization()).tensors
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_act_order_is_refused_or_rounded_again(tmp_path):
    folder = folders.write_quantized(tmp_path, "gptq", settings={"desc_act": True})
    open_checkpoint(folder).check_values()  # its groups are in order all the same
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.self_attn.q_proj"
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    tensors[f"{name}.g_idx"] = tensors[f"{name}.g_idx"][order]
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"q_proj is quantized in act-order"):
        open_checkpoint(folder).check_values()
    requantization = Requantization()
    checkpoint = open_checkpoint(folder, round_again=requantization)
    expected = folders.expected_tensors()
    values, scales = (expected[f"{WQ}.{part}"].float() for part in ("weight", "scales"))
    weight = values * scales.repeat_interleave(32, 1)[:, order]
    new = checkpoint.tensors[f"{WQ}.weight"].view(64, 2, 32)
    new = (new * checkpoint.tensors[f"{WQ}.scales"][..., None]).view(64, 64)
    assert float((new - weight).norm() / weight.norm()) < 0.2
    assert set(requantization.errors) == {name}


@pytest.mark.parametrize("order", [("weight", "scales"), ("scales", "weight", "scales", "weight")])
def test_what_is_rounded_again_hangs_on_no_order_of_reading(tmp_path, order):
    folder = folders.write_quantized(tmp_path, "gptq", zeros=ASYMMETRIC)
    once, requantization = Requantization(), Requantization()
    expected = open_checkpoint(folder, round_again=once).tensors
    weight, scales = expected[f"{WQ}.weight"], expected[f"{WQ}.scales"]
    found = open_checkpoint(folder, round_again=requantization).tensors
    for part in order:
        tensor = found[f"{WQ}.{part}"]
        assert torch.equal(tensor, weight if part == "weight" else scales)
    assert requantization.errors == once.errors


def test_one_group_a_row_is_written_as_several(tmp_path):
    """compressed-tensors' channel strategy, on rows that no kernel takes as one group;
    in those of 256, phones compute 8da4w wrongly."""
    linear = folders.pack_compressed(torch.ones(8, 1024, dtype=torch.int8), torch.ones(8, 1))
    from quatrain.checkpoint.files.lazy_tensors import StoredTensor
    from quatrain.checkpoint.quantizers.compressed_tensors import COMPRESSED_TENSORS
    from quatrain.checkpoint.quantizers.in_layout import in_layout

    stored = {
        name: StoredTensor(tuple(part.shape), part.dtype, lambda part=part: part)
        for name, part in linear.items()
    }
    settings = folders.SETTINGS["compressed-tensors"]
    linear = COMPRESSED_TENSORS.read(Parts(stored, "f", "file"), settings)
    tensors = in_layout({"f": linear}, "file")
    assert tensors.stored["f.scales"].shape == (8, 8)
    assert torch.equal(tensors["f.scales"], torch.ones(8, 8))


HADAMARD = {"type": "hadamard", "apply": [{"targets": ["re:.*down_proj"], "location": "input"}]}
ONLINE = {"config_groups": {"R4": HADAMARD}}
OUTPUTS = {"g": {"weights": {"num_bits": 4}, "output_activations": {"num_bits": 8}}}


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("gptq", {"bits": 5}, "bits 5, expected 4, 8, 2 or 3"),
        ("gptq", {"checkpoint_format": "marlin"}, "'marlin'"),
        ("gptq", {"quant_method": "quip"}, "'quip', expected one of gptq"),
        ("awq", {"version": "gemv"}, "'gemv'"),
        ("awq", {"version": None, "checkpoint_format": "gemv_fast"}, "'gemv_fast'"),
        ("awq", {"bits": "4"}, "bits '4'"),
        ("compressed-tensors", {"format": "marlin-24"}, "'marlin-24'"),
        ("compressed-tensors", {"config_groups": []}, "config_groups"),
        ("compressed-tensors", {"config_groups": {"g": {"weights": {"num_bits": 9}}}}, "2 to 8"),
        ("compressed-tensors", {"config_groups": {"g": {"weights": {"num_bits": 4.0}}}}, "2 to 8"),
        ("compressed-tensors", {"config_groups": {"g": {"targets": "Linear"}}}, "targets Linear"),
        ("compressed-tensors", {"config_groups": {"g": {"weights": {"num_bits": 8}}}}, "8 bits"),
        ("awq", {"quant_method": "gptq"}, "groups|int32|expected"),
        ("awq", {"quant_method": "quip"}, "on the original model, in floating point"),
        ("compressed-tensors", {"transform_config": ONLINE}, "applied to activations.*'input'"),
        ("compressed-tensors", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "'dense'"),
        ("compressed-tensors", {"config_groups": OUTPUTS}, "quantizes outputs"),
    ],
)
def test_unreadable_settings_are_named(tmp_path, method, settings, message):
    folder = folders.write_quantized(tmp_path, method, settings=settings)
    with pytest.raises(InputError, match=message):
        open_checkpoint(folder)


def test_float_and_quantized_point_at_each_other(tmp_path):
    quantized = folders.write_quantized(tmp_path / "q", "gptq")
    with pytest.raises(InputError, match="quatrain convert"):
        open_float_model(quantized)
    floating = tiny.write_hugging_face(tmp_path / "f")
    with pytest.raises(InputError, match="quatrain quantize"):
        open_checkpoint(floating)


def test_asymmetric_in_the_layout_itself(tmp_path):
    tensors = tiny.int4_tensors()
    zeros = torch.zeros_like(tensors[f"{WQ}.scales"])
    zeros[0, 1] = 3
    tensors[f"{WQ}.zeros"] = zeros
    folder = tiny.write_checkpoint(tmp_path, tensors)
    with pytest.raises(InputError, match=rf"{WQ}\.zeros\[0, 1\] is 3.*requantize-asymmetric"):
        open_checkpoint(folder).check_values()
    requantization = Requantization()
    checkpoint = open_checkpoint(folder, round_again=requantization)
    checkpoint.check_values()
    assert set(requantization.errors) == {WQ}
    shape = (64, 2, 32)
    weight = (tensors[f"{WQ}.weight"].view(shape) - zeros[..., None]) * tensors[f"{WQ}.scales"][
        ..., None
    ]
    ours = (
        checkpoint.tensors[f"{WQ}.weight"].view(shape)
        * checkpoint.tensors[f"{WQ}.scales"][..., None]
    )
    assert float((ours - weight).norm() / weight.norm()) < 0.1
    w1 = "layers.0.feed_forward.w1.weight"
    assert torch.equal(checkpoint.tensors[w1], tensors[w1])
