"""What torchao quantized opens as a checkpoint, without loss, or says why not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny
from tests.support.models.peers import change_config

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.quantize.methods.round_to_nearest import quantize_groups
from quatrain.quantize.quantized_tensor import relative_rms
from quatrain.quantize.requantize import Requantization

WQ = "layers.0.attention.wq"


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("settings", "group"), [(False, 32), (True, 32), (False, 16)])
def test_values_and_scales_are_kept(tmp_path, pickled, dynamic, settings, group):
    folder, state = folders.write_torchao(
        tmp_path, pickled=pickled, dynamic=dynamic, settings=settings, group=group
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
            checkpoint.config, checkpoint.tensors, "weight-only", group_size=group
        )
        found = backbone.layers[0].attention.wq.dequantized_weight()
        assert torch.equal(found.bfloat16(), weight.dequantize())


def test_asymmetric_is_refused_or_rounded_again(tmp_path):
    folder, _ = folders.write_torchao(tmp_path, symmetric=False, embedding=False)
    with pytest.raises(InputError, match=r"zeros\[.*requantize-asymmetric"):
        open_checkpoint(folder).check_values()
    requantization = Requantization()
    open_checkpoint(folder, round_again=requantization).check_values()
    assert len(requantization.errors) == 15
    assert 0 < relative_rms(requantization.errors.values()) < 0.2


def test_after_qat_convert(tmp_path):
    """QAT of a module with Meta's names, prepared and converted by torchao, saved with pickle."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_
    from torchao.quantization.qat import QATConfig

    from quatrain.backbone.model import Backbone
    from quatrain.backbone.params.params import config_from_params

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


def test_as_transformers_saves_it(tmp_path):
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


def _folder(tmp_path, width=512, hidden=1024, linears=None, tables=None):
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


def test_int8_tables_stay_per_row(tmp_path):
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup

    int4 = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    int8 = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    state = _folder(tmp_path, linears=int4, tables=int8)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int8")
    for ours, theirs in (("tok_embeddings", "model.embed_tokens"), ("output", "lm_head")):
        assert torch.equal(checkpoint.tensors[f"{ours}.weight"], state[f"{theirs}.weight"].qdata)
        assert checkpoint.tensors[f"{ours}.scales"].shape == (272, 1)


def test_asymmetric_int8_stays_int8(tmp_path):
    from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerAxis, PerGroup

    int4 = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    int8 = IntxWeightOnlyConfig(
        weight_dtype=torch.int8, granularity=PerAxis(0), mapping_type=MappingType.ASYMMETRIC
    )
    state = _folder(tmp_path, linears=int4, tables=int8)
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
    state = _folder(tmp_path, width, hidden, int4)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.check_values()
    assert checkpoint.group_size == size
    scales = checkpoint.tensors["layers.0.feed_forward.w2.scales"]
    of_row = state["model.layers.0.mlp.down_proj.weight"].scale
    assert torch.equal(scales, of_row.expand(-1, hidden // size))


def _quantized(folder, config, pickled: bool) -> dict[str, torch.Tensor]:
    """A model whose linears `config` quantizes, as transformers saves it; its state dict."""
    from torchao.core.config import config_to_dict

    state = _folder(folder, linears=config)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
    stated = {"quant_method": "torchao", "quant_type": {"default": config_to_dict(config)}}
    change_config(folder, quantization_config=stated)
    return state


@pytest.mark.parametrize("pickled", [False, True])
def test_fp8_is_floating_point(tmp_path, pickled):
    """As the models called FP8 of PyTorch itself on the hub."""
    from torchao.quantization import Float8WeightOnlyConfig

    state = _quantized(tmp_path, Float8WeightOnlyConfig(), pickled)
    assert not is_quantized(tmp_path)
    model = open_float_model(tmp_path)
    weight = state["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(model.tensors[f"{WQ}.weight"], weight.qdata.float() * weight.scale)
    assert "its matrices are in FP8" in model.notes[0]


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_linears_of_int8_by_rows_are_rounded_again(tmp_path, pickled, dynamic):
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    config = Int8DynamicActivationInt8WeightConfig() if dynamic else Int8WeightOnlyConfig()
    state = _quantized(tmp_path, config, pickled)
    with pytest.raises(InputError, match=r"is 8 bits in an int4 layout; run `quatrain convert"):
        open_checkpoint(tmp_path)
    checkpoint = open_checkpoint(tmp_path, round_again=Requantization(asymmetric=False))
    checkpoint.check_values()
    weight = state["model.layers.0.self_attn.q_proj.weight"]
    expected, scales = quantize_groups(weight.qdata * weight.scale, 32)
    assert torch.equal(checkpoint.tensors[f"{WQ}.weight"], expected)
    assert torch.equal(checkpoint.tensors[f"{WQ}.scales"], scales)


def test_inputs_that_are_multiplied_are_named(tmp_path):
    """SmoothQuant's, in a pickle, where each tensor is one object."""
    from torchao.quantization import Int8WeightOnlyConfig

    state = _quantized(tmp_path, Int8WeightOnlyConfig(), pickled=True)
    weight = state["model.layers.0.self_attn.q_proj.weight"]
    weight.act_pre_scale = torch.ones(64)
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"q_proj\._weight_act_pre_scale is not known"):
        open_checkpoint(tmp_path, round_again=Requantization())
