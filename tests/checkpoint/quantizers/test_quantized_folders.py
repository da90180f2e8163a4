"""Quantized folders of other programs open as checkpoints, without loss, or say why not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support import quantized_folders as folders
from tests.support import tiny_models as tiny

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint, open_float_model
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
    monkeypatch.setattr("quatrain.checkpoint.quantizers.gptq.unpack_columns", None)
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
    """compressed-tensors' channel strategy, on rows that no kernel takes as one group."""
    linear = folders.pack_compressed(torch.ones(8, 1024, dtype=torch.int8), torch.ones(8, 1))
    from quatrain.checkpoint.files.lazy_tensors import StoredTensor
    from quatrain.checkpoint.quantizers.compressed_tensors import COMPRESSED_TENSORS
    from quatrain.checkpoint.quantizers.grouped_linear import in_layout

    stored = {
        name: StoredTensor(tuple(part.shape), part.dtype, lambda part=part: part)
        for name, part in linear.items()
    }
    tensors = in_layout({"f": COMPRESSED_TENSORS.read(stored, {}, "f", "file")}, "file")
    assert tensors.stored["f.scales"].shape == (8, 4)
    assert torch.equal(tensors["f.scales"], torch.ones(8, 4))


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("settings", [False, True])
def test_torchao(tmp_path, pickled, dynamic, settings):
    folder, state = folders.write_torchao(
        tmp_path, pickled=pickled, dynamic=dynamic, settings=settings
    )
    checkpoint = open_checkpoint(folder)
    checkpoint.check_values()
    weight = state["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(checkpoint.tensors[f"{WQ}.weight"], weight.qdata)
    assert torch.equal(checkpoint.tensors[f"{WQ}.scales"], weight.scale)
    assert checkpoint.tensors[f"{WQ}.scales"].dtype == torch.bfloat16
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int4")
    if dynamic and not settings:  # down to the logits' own numbers, once
        backbone = build_backbone(
            checkpoint.config, checkpoint.tensors, "weight-only", group_size=32
        )
        found = backbone.layers[0].attention.wq.dequantized_weight()
        assert torch.equal(found.bfloat16(), weight.dequantize())


def test_torchao_asymmetric(tmp_path):
    folder, _ = folders.write_torchao(tmp_path, symmetric=False, embedding=False)
    with pytest.raises(InputError, match=r"zeros\[.*requantize-asymmetric"):
        open_checkpoint(folder).check_values()
    requantization = Requantization()
    open_checkpoint(folder, round_again=requantization).check_values()
    assert len(requantization.errors) == 15
    assert 0 < relative_rms(requantization.errors.values()) < 0.2


def test_torchao_after_qat_convert(tmp_path):
    """QAT of a module with Meta's names, prepared and converted by torchao, saved with pickle."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_
    from torchao.quantization.qat import QATConfig

    from quatrain.backbone.model import Backbone
    from quatrain.backbone.params import config_from_params

    torch.manual_seed(0)
    model = Backbone(config_from_params(tiny.PARAMS, "params.json"))
    torch.nn.init.normal_(model.tok_embeddings.weight)  # which a backbone leaves as memory was
    base = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=PerGroup(32)
    )
    quantize_(model, QATConfig(base, step="prepare"))
    model(torch.tensor([[1, 2, 3]]), torch.tensor([0]))
    quantize_(model, QATConfig(base, step="convert"))
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if "cache" not in name and not name.startswith("rope.")
    }
    torch.save(state, tmp_path / "qat.pth")
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.check_values()
    assert torch.equal(checkpoint.tensors[f"{WQ}.weight"], state[f"{WQ}.weight"].qdata)
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("fp", "int4")


def test_another_torchao_type_is_named(tmp_path):
    folder, _ = folders.write_torchao(tmp_path, embedding=False)
    from safetensors import safe_open

    file = folder / "model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = {
            name: text.replace("IntxUnpackedToInt8Tensor", "Int4Tensor")
            for name, text in opened.metadata().items()
        }
    save_file(load_file(file), file, metadata)
    with pytest.raises(InputError, match="is a torchao Int4Tensor"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("gptq", {"bits": 3}, "bits 3, expected 4"),
        ("gptq", {"checkpoint_format": "marlin"}, "'marlin'"),
        ("gptq", {"quant_method": "quip"}, "'quip', expected one of gptq"),
        ("awq", {"version": "gemv"}, "'gemv'"),
        ("awq", {"bits": "4"}, "bits '4'"),
        ("compressed-tensors", {"format": "marlin-24"}, "'marlin-24'"),
        ("compressed-tensors", {"config_groups": []}, "config_groups"),
        ("compressed-tensors", {"config_groups": {"g": {"weights": {"num_bits": 8}}}}, "4-bit"),
        ("awq", {"quant_method": "gptq"}, "groups|int32|expected"),
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


def test_torchao_as_transformers_saves_it(tmp_path):
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup
    from transformers import LlamaForCausalLM, TorchAoConfig

    tiny.write_hugging_face(tmp_path / "float", architectures=["LlamaForCausalLM"])
    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=PerGroup(32)
    )
    model = LlamaForCausalLM.from_pretrained(
        tmp_path / "float", dtype=torch.bfloat16, quantization_config=TorchAoConfig(config)
    )
    model.save_pretrained(tmp_path / "int4")
    checkpoint = open_checkpoint(tmp_path / "int4")
    checkpoint.check_values()
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert torch.equal(checkpoint.tensors[f"{WQ}.weight"], weight.qdata)
    assert torch.equal(checkpoint.tensors[f"{WQ}.scales"], weight.scale)
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("fp", "fp")


def _torchao_folder(tmp_path, width=512, hidden=1024, linears=None, tables=None):
    """A tiny transformers Llama whose linears and tables are quantized by torchao as asked."""
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import quantize_
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = tiny.HUGGING_FACE | {"hidden_size": width, "intermediate_size": hidden}
    settings = {name: value for name, value in fields.items() if name != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    quantize_(model, linears, lambda m, name: isinstance(m, torch.nn.Linear) and "lm_" not in name)
    if tables:
        is_table = (torch.nn.Embedding, torch.nn.Linear)
        quantize_(model.model, tables, lambda m, name: isinstance(m, is_table) and "emb" in name)
        quantize_(model, tables, lambda m, name: name == "lm_head")
    flat, metadata = flatten_tensor_state_dict(
        {name: tensor.detach() for name, tensor in model.state_dict().items()}
    )
    save_file({name: part.clone() for name, part in flat.items()},
              tmp_path / "model.safetensors", metadata)  # fmt: skip
    fields["quantization_config"] = {"quant_method": "torchao"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def test_torchao_int8_tables_stay_per_row(tmp_path):
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup

    int4 = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    int8 = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    state = _torchao_folder(tmp_path, linears=int4, tables=int8)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int8")
    for ours, theirs in (("tok_embeddings", "model.embed_tokens"), ("output", "lm_head")):
        assert torch.equal(checkpoint.tensors[f"{ours}.weight"], state[f"{theirs}.weight"].qdata)
        assert checkpoint.tensors[f"{ours}.scales"].shape == (272, 1)


def test_torchao_asymmetric_int8_stays_int8(tmp_path):
    from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerAxis, PerGroup

    int4 = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    int8 = IntxWeightOnlyConfig(
        weight_dtype=torch.int8, granularity=PerAxis(0), mapping_type=MappingType.ASYMMETRIC
    )
    state = _torchao_folder(tmp_path, linears=int4, tables=int8)
    requantization = Requantization()
    checkpoint = open_checkpoint(tmp_path, round_again=requantization)
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int8")
    assert 0 < relative_rms(requantization.errors.values()) < 0.01
    weight = state["model.embed_tokens.weight"].dequantize().float()
    ours = checkpoint.tensors["tok_embeddings.weight"] * checkpoint.tensors["tok_embeddings.scales"]
    assert float((ours - weight).norm() / weight.norm()) < 0.02


@pytest.mark.parametrize(("width", "hidden", "size"), [(896, 4864, 128), (128, 256, 128)])
def test_channel_wise_linears_of_several_widths(tmp_path, width, hidden, size):
    """Qwen 2.5 0.5B's widths, whose largest group sizes differ; and rows that are one group."""
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis

    int4 = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerAxis(0))
    state = _torchao_folder(tmp_path, width, hidden, int4)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.check_values()
    assert checkpoint.group_size == size
    scales = checkpoint.tensors["layers.0.feed_forward.w2.scales"]
    of_row = state["model.layers.0.mlp.down_proj.weight"].scale
    assert torch.equal(scales, of_row.expand(-1, hidden // size))


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
