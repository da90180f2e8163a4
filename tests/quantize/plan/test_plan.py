"""What becomes of each tensor, decided from headers: by which method, in which order."""

from typing import get_args

import torch
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.quantize.calibrated_method import CALIBRATED
from quatrain.quantize.methods import METHODS
from quatrain.quantize.plan.plan import MethodName
from quatrain.quantize.plan.plan_checkpoint import plan_checkpoint
from quatrain.quantize.plan.plan_model import plan_model
from quatrain.quantize.tensor_formats import Rounding


def test_every_method_has_a_name():
    assert {*METHODS, *CALIBRATED} == set(get_args(MethodName))
    assert {*CALIBRATED, "rtn"} == set(get_args(Rounding))


def test_a_model(tmp_path):
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", kind="Q8_0"))
    plan = plan_model(model, 32, "fp", "int8")
    methods = [(tensor.part, tensor.method, tensor.group_size) for tensor in plan.tensors]
    assert methods[0] == ("embedding", "stored", None)
    assert methods[1:15] == [("layers", "rtn", 32)] * 14
    assert methods[15:-1] == [("layers", "stored", None)] * 5
    assert methods[-1] == ("output", "rtn", None)
    assert len(plan.specs) == 1 + 14 * 2 + 5 + 2


def test_the_files_own_int4_is_kept_in_its_own_groups(tmp_path):
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf", kind="Q4_0"))
    methods = {
        tensor.target: tensor.method for tensor in plan_model(model, 32, "keep", "keep").tensors
    }
    assert methods["tok_embeddings.weight"] == "int4_blocks"
    assert methods["layers.0.attention.wq.weight"] == "int4_blocks"
    assert methods["norm.weight"] == "stored"
    rounded = plan_model(model, 32, "int8", "keep").tensors[0]
    assert (rounded.method, rounded.group_size) == ("rtn", None)


def test_a_checkpoint_is_kept_and_its_zero_points_only_checked(tmp_path):
    zeros = {"layers.0.attention.wq": torch.zeros(64, 2)}
    checkpoint = open_checkpoint(folders.write_quantized(tmp_path, "awq", zeros=zeros))
    plan = plan_checkpoint(checkpoint, None, "keep", "int4")
    assert [tensor.source for tensor in plan.tensors] == list(checkpoint.tensors)
    rounded = [tensor.source for tensor in plan.tensors if tensor.method != "stored"]
    assert rounded == ["output.weight"]
    unwritten = {tensor.source for tensor in plan.tensors if not tensor.specs}
    assert unwritten == {name for name in checkpoint.tensors if name.endswith(".zeros")} != set()
