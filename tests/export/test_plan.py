"""What is planned, from headers alone; that programs are as planned stands beside their exports."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.command_line import invoked
from tests.support.formats.gguf_files import write_gguf
from tests.support.models.tiny_checkpoint import PARAMS, write_checkpoint
from tests.support.models.tiny_models import float_tensors, write_hugging_face

from quatrain.backbone.model import Backbone
from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.files.lazy_tensors import AsFloat32
from quatrain.errors import InputError
from quatrain.export import ExportOptions, ExportRequest, export_checkpoint
from quatrain.export.plan.memory import memory_of
from quatrain.export.plan.plan import QuantizeRequest, plan_programs
from quatrain.int4 import Scheme
from quatrain.quantize.pipeline import quantize_model


def kinds(plan):
    return [(program.backend, program.scheme) for program in plan.programs]


def test_a_model_is_planned_as_it_is_quantized_and_nothing_is_read(tmp_path, monkeypatch):
    model = write_hugging_face(tmp_path / "model")
    report = quantize_model(model, tmp_path / "c", embedding="int4", method="rtn")
    made = plan_programs(tmp_path / "c")

    def read(self):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(AsFloat32, "__call__", read)
    planned = plan_programs(model, quantizing=QuantizeRequest(32, "int4", "keep", "rtn"))
    assert planned.checkpoint is not None and made.checkpoint is None
    assert planned.checkpoint.weights_bytes == report.weights_bytes
    assert planned.checkpoint.bytes_in == report.bytes_in
    assert planned.checkpoint.parts == report.parts
    written = load_file(tmp_path / "c" / "model.safetensors")
    integers = sum(one.nbytes for one in written.values() if one.dtype == torch.int8)
    scales = sum(one.nbytes for name, one in written.items() if name.endswith(".scales"))
    assert sum(part.integers for part in report.parts) == integers
    assert sum(part.scales for part in report.parts) == scales
    assert sum(part.bytes for part in report.parts) == sum(one.nbytes for one in written.values())
    assert planned.checkpoint.why_larger == report.why_larger
    assert planned.programs == made.programs
    assert kinds(made) == [("vulkan", "8da4w"), ("vulkan", "weight-only"), ("xnnpack", "8da4w")]


def test_why_a_checkpoint_is_larger_than_its_source(tmp_path):
    """Four and a half bits a weight become a byte and a scale, a tied table two."""
    model = write_gguf(tmp_path / "m.gguf", float_tensors(tied=True), kind="Q4_0")
    planned = plan_programs(model, quantizing=QuantizeRequest(embedding="fp", method="rtn"))
    assert planned.checkpoint is not None
    layers = next(part for part in planned.checkpoint.parts if part.part == "layers")
    assert layers.integers == layers.weights and layers.scales == layers.weights / 32 * 4
    values, tables, norms = planned.checkpoint.why_larger
    assert "each int4 value in a byte" in values and "stay in float32" in norms
    assert "(int4, 0.0 MB and fp, 0.1 MB)" in tables and tables.endswith("store them each.")


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ({"output": "int8"}, {}),
        ({}, {"backend": "xnnpack", "scheme": "weight-only"}),
        ({"use_hf_rope": True, "head_dim": 16, "partial_rotary_factor": 0.75}, {}),
        ({"head_dim": 12, "n_heads": 8}, {}),
        ({"group_size": 256, "dim": 256, "hidden_dim": 256}, {}),
        ({"max_seq_len": 2}, {}),
    ],
)
def test_what_export_refuses_is_refused_alike(shape, options, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", **shape)
    with pytest.raises(InputError) as refused:
        export_checkpoint(checkpoint, tmp_path / "m.pte", ExportOptions(**options))
    request = ExportRequest(**{"scheme": Scheme.DYNAMIC_INT8, **options})
    (program,) = plan_programs(checkpoint, request, (request.backend,)).programs
    assert program.refused == str(refused.value) and program.predicted_bytes is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--method", "gptq"], "method = 'gptq' is for a floating-point model"),
        (["--group-size", 64], "group-size = 64 is for a floating-point model"),
        (["--embedding", "fp"], "embedding = 'fp' is for a floating-point model"),
        (["--output-layer", "int8"], "output-layer = 'int8' is for a floating-point model"),
        (["--group-size", 32], "^--group-size 32: is for a floating-point model"),
        (["--output-layer", "int4"], "^--output-layer int4: is for a floating-point model"),
    ],
)
def test_how_to_quantize_is_refused_of_a_checkpoint(asked, said, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c")
    with pytest.raises(InputError, match=said):
        invoked(["plan", str(checkpoint), *map(str, asked)], catch_exceptions=False)


def test_parameters_of_a_model_in_floating_point_are_its_own(tmp_path):
    model, params = write_hugging_face(tmp_path / "m"), tmp_path / "params.json"
    params.write_text("{}")
    with pytest.raises(InputError, match=r"--params .*params.json: .* is in floating point"):
        plan_programs(model, params=params)


def test_a_target_chooses_one_program_and_refuses_what_fails_there(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c")
    request = ExportRequest(target="mali-g715", runtime="1.3")
    made = plan_programs(checkpoint, request)
    assert kinds(made) == [("vulkan", "8da4w")] and made.reasons
    asked = ExportRequest(Scheme.DYNAMIC_INT8, "vulkan", "fp16", "mali-g715", "1.3")
    (program,) = plan_programs(checkpoint, asked).programs
    assert "would fail on mali-g715, runtime 1.3: dq8ca-zp-binding-float" in str(program.refused)
    with pytest.raises(InputError, match="the model was trained for a context of 64"):
        plan_programs(checkpoint, ExportRequest(max_seq_len=65))


def test_the_verb_prints_a_line_for_each_program(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", embedding="int4", output="tied")
    done = invoked(["plan", str(checkpoint)])
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["program", "8da4w", "weight-only", "8da4w"]
    done = invoked(["plan", str(checkpoint), "--json"])
    found = json.loads(done.stdout)
    assert found["checkpoint"] is None
    dynamic, weight_only, _ = (program["predicted_bytes"] for program in found["programs"])
    assert dynamic["file"] > weight_only["file"] > weight_only["constants"]
    assert dynamic["memory"] > dynamic["constants"] + dynamic["caches"]
    one = invoked(["plan", str(checkpoint), "--linear-scheme", "weight-only", "--json"])
    assert json.loads(one.stdout)["programs"][0]["predicted_bytes"] == weight_only
    half = ["plan", str(checkpoint), "--json", "--activation-dtype", "fp16"]
    programs = json.loads(invoked(half).stdout)["programs"]
    assert {program["backend"] for program in programs} == {"vulkan"}
    assert programs[0]["predicted_bytes"]["caches"] == dynamic["caches"] / 2


def test_a_wide_expert_of_every_token_counts_in_memory() -> None:
    """As the widest of a layer, of whose values three are there at once."""
    usual, wide = (
        memory_of(Backbone(config_from_params(PARAMS | more, "p")), ExportOptions(), 0)[0]
        for more in ({"num_experts": 2}, {"num_experts": 2, "shared_hidden_dim": 512})
    )
    assert wide - usual == 3 * (512 - PARAMS["hidden_dim"]) * PARAMS["max_seq_len"] * 4
