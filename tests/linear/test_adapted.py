"""LoRA adaptors and SpinQuant's rotation against ExecuTorch's own."""

import pytest
import torch
from torch import nn

from quatrain.errors import InputError
from quatrain.linear import Int8DynActInt4WeightLinear
from quatrain.linear.adapted import Hadamard, RotatedLinear
from quatrain.transform.adaptation import (
    transform_down_projection_for_spinquant,
    transform_linear_for_lora_after_quantization,
)


@pytest.mark.parametrize("size", [1, 2, 8, 32, 128, 2048, 8192])
def test_hadamard_is_executorchs(size):
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    x = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(size))
    found = Hadamard(size)(x)
    expected = torch.ops.llama.fast_hadamard_transform(x)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(Hadamard(size)(found), x, atol=1e-5)  # its own inverse


def test_hadamard_takes_powers_of_two():
    with pytest.raises(ValueError, match="96"):
        Hadamard(96)


def linear_and_state():
    generator = torch.Generator().manual_seed(0)
    state = {
        "f.weight": torch.randint(-8, 8, (64, 128), dtype=torch.int8, generator=generator),
        "f.scales": torch.rand(64, 4, generator=generator) * 0.1,
        "f.zeros": torch.zeros(64, 4),
        "f.adaptor.A.weight": torch.randn(16, 128, generator=generator).bfloat16(),
        "f.adaptor.B.weight": torch.randn(64, 16, generator=generator).bfloat16(),
    }
    module = nn.ModuleDict({"f": Int8DynActInt4WeightLinear(128, 64, bias=False, groupsize=32)})
    return module, state


def test_lora_is_executorchs():
    from executorch.examples.models.llama.source_transformation.lora import (
        Int8DynActInt4WeightLinearLoRA,
    )

    module, state = linear_and_state()
    scale = 2.0
    peer = Int8DynActInt4WeightLinearLoRA(
        128,
        64,
        lora_rank=16,
        bias=False,
        groupsize=32,
        lora_adaptor_precision=torch.float32,
        lora_scale=scale,
    )
    peer.load_state_dict({name.removeprefix("f."): tensor for name, tensor in state.items()})
    ours = {name: tensor.float() if "adaptor" in name else tensor for name, tensor in state.items()}
    ours["f.adaptor.B.weight"] = ours["f.adaptor.B.weight"] * scale
    transform_linear_for_lora_after_quantization(module, ours)
    module.load_state_dict(ours)
    x = torch.randn(1, 5, 128)
    assert torch.allclose(module["f"](x), peer(x), rtol=1e-5, atol=1e-4)


def test_adaptors_that_do_not_fit():
    module, state = linear_and_state()
    state["f.adaptor.B.weight"] = torch.zeros(64, 8)
    with pytest.raises(InputError, match=r"f\.adaptor: A is \[16, 128\] and B is \[64, 8\]"):
        transform_linear_for_lora_after_quantization(module, state)


def test_spinquant_is_a_rotation_before_the_down_projection():
    module, state = linear_and_state()
    block = nn.ModuleDict({"feed_forward": nn.ModuleDict({"w2": module["f"]})})
    transform_down_projection_for_spinquant(block)
    rotated = block["feed_forward"]["w2"]
    assert isinstance(rotated, RotatedLinear)
    block.load_state_dict(
        {f"feed_forward.w2.{part}": state[f"f.{part}"] for part in ("weight", "scales", "zeros")}
    )
    x = torch.randn(3, 128)
    assert torch.equal(rotated(x), rotated.base(Hadamard(128)(x)))
    other = nn.ModuleDict({"feed_forward": nn.ModuleDict({"w2": nn.Linear(96, 8)})})
    with pytest.raises(InputError, match="96"):
        transform_down_projection_for_spinquant(other)
