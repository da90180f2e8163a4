"""Meta's quantized Llama 3.2 layouts, QLoRA and SpinQuant, against ExecuTorch's own loading."""

import json

import pytest
import torch
from tests.support.formats.meta_releases import (
    HIDDEN,
    LORA,
    PARAMS,
    SPINQUANT,
    release_tensors,
    write_release,
)
from tests.support.models import tiny_models as tiny

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize.pipeline import convert_model


def peer_logits(tensors, lora=False, spinquant=False):
    """ExecuTorch's own model and transformations on the same tensors, in float32."""
    from executorch.examples.models.llama.llama_transformer import construct_transformer
    from executorch.examples.models.llama.model_args import ModelArgs
    from executorch.examples.models.llama.source_transformation import lora as peer_lora
    from executorch.examples.models.llama.source_transformation import pre_quantization as peer
    from executorch.examples.models.llama.source_transformation import spin_quant
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    fields = {name: value for name, value in PARAMS.items() if name != "quantization_args"}
    model = construct_transformer(
        ModelArgs(**fields | {"hidden_dim": HIDDEN}, max_seq_len=32, max_context_len=32)
    )
    checkpoint = {
        name: tensor if "adaptor" in name or not tensor.is_floating_point() else tensor.float()
        for name, tensor in tensors.items()
    }
    peer.sanitize_checkpoint_from_pre_quantization(checkpoint)
    peer.transform_output_linear_for_pre_quantization(model, checkpoint, torch.float32)
    peer.transform_linear_for_pre_quantization(model, checkpoint, 32, torch.float32)
    peer.transform_embedding_for_pre_quantization(model, checkpoint, torch.float32, 8, 0)
    if lora:
        peer_lora.transform_linear_for_lora_after_quantization(model, checkpoint, 16)
    missing, unexpected = model.load_state_dict(checkpoint, strict=False)
    assert not unexpected and all("zeros" in name or "freqs" in name for name in missing)
    if spinquant:
        spin_quant.inject_fast_hadamard_transform_native_for_spin_quant(model)
    for name, buffer in model.named_buffers():
        if name.endswith("zeros"):
            buffer.zero_()
    with torch.no_grad():
        return model.float().eval()(torch.tensor([[5, 9, 200, 33]]))[0]


@pytest.mark.parametrize("kind", ["plain", "qlora", "spinquant"])
def test_logits_are_executorchs(tmp_path, kind):
    tensors = release_tensors(adaptors=kind == "qlora")
    params = {"plain": {}, "qlora": LORA, "spinquant": SPINQUANT}[kind]
    checkpoint = open_checkpoint(write_release(tmp_path / "a", tensors, **params))
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int8")
    expected = peer_logits(tensors, lora=kind == "qlora", spinquant=kind == "spinquant")
    convert_model(tmp_path / "a", tmp_path / "b")
    for opened in (checkpoint, open_checkpoint(tmp_path / "b")):
        backbone = build_backbone(opened.config, opened.tensors, group_size=32, max_seq_len=32)
        with torch.no_grad():
            found = backbone(torch.tensor([[5, 9, 200, 33]]), torch.tensor([0]))
        error = (found - expected.view(found.shape)).abs().max() / expected.abs().max()
        assert error < 1e-5, float(error)


def test_each_adaptation_changes_the_logits():
    plain = peer_logits(release_tensors())
    assert not torch.allclose(plain, peer_logits(release_tensors(), spinquant=True), rtol=0.01)


def test_scales_keep_their_dtype(tmp_path):
    checkpoint = open_checkpoint(write_release(tmp_path, release_tensors()))
    assert checkpoint.tensors["layers.0.attention.wq.scales"].dtype == torch.bfloat16


def without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


WQ = "layers.0.attention.wq"


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (None, {}, "lora_args in params.json is None"),
        (None, {"lora_args": {"rank": 8, "scale": 2.0}}, "the rank is 8"),
        (None, {"lora_args": {"rank": "16", "scale": 2.0}}, "expected a rank and a scale"),
        (None, {"lora_args": {"rank": 16, "scale": float("inf")}}, "expected a rank and a scale"),
        (f"{WQ}.adaptor.B.weight", LORA, rf"{WQ}\.adaptor has A \[16, 64\] and B None"),
    ],
)
def test_adaptors_that_do_not_fit(tmp_path, change, params, message):
    tensors = without(release_tensors(adaptors=True), change)
    with pytest.raises(InputError, match=message):
        open_checkpoint(write_release(tmp_path, tensors, **params))


def test_lora_args_without_adaptors(tmp_path):
    with pytest.raises(InputError, match="has no adaptors"):
        open_checkpoint(write_release(tmp_path, release_tensors(), **LORA))


def test_spinquant_of_a_width_without_a_rotation(tmp_path):
    folder = tiny.write_checkpoint(tmp_path)
    params = json.loads((folder / "params.json").read_text())
    params["quantization_args"]["spinquant"] = True
    (folder / "params.json").write_text(json.dumps(params))
    opened = open_checkpoint(folder)
    with pytest.raises(InputError, match="96 is not a power of two"):
        build_backbone(opened.config, opened.tensors, group_size=32)
