"""The seed's functions on modules that are not ours, and on what is wrong with a checkpoint."""

import copy

import pytest
import torch
from torch import nn

from quatrain.errors import InputError
from quatrain.linear import (
    Int8DynActInt4WeightLinear,
    Int8DynActInt8WeightLinear,
    QuantizedGroupEmbedding,
    WeightOnlyInt4Linear,
)
from quatrain.transform.pre_quantization import (
    sanitize_checkpoint_from_pre_quantization,
    transform_embedding_for_pre_quantization,
    transform_linear_for_pre_quantization,
    transform_output_linear_for_pre_quantization,
)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 64)
        self.up = nn.Linear(64, 32)
        self.plain = nn.Linear(32, 32, bias=False)
        self.output = nn.Linear(32, 10, bias=False)

    def forward(self, tokens):
        return self.output(self.plain(self.up(self.embed(tokens))))


def checkpoint() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def ints(rows, columns, low=-8, high=8):
        return torch.randint(low, high, (rows, columns), generator=generator, dtype=torch.int8)

    def floats(*shape):
        return torch.rand(shape, generator=generator) + 0.01

    return {
        "embed.weight": ints(10, 64, -128, 128),
        "embed.scales": floats(10, 1),
        "up.weight": ints(32, 64),
        "up.scales": floats(32, 2),
        "up.zeros": torch.zeros(32, 2),
        "up.bias": floats(32),
        "plain.weight": floats(32, 32),
        "output.weight": ints(10, 32, -128, 128),
        "output.scales": floats(10, 1),
    }


def transformed(weights, weight_only=False):
    module = Tiny()
    transform_output_linear_for_pre_quantization(module, weights, torch.float32)
    transform_linear_for_pre_quantization(module, weights, 32, torch.float32, weight_only)
    transform_embedding_for_pre_quantization(module, weights, torch.float32, bit_width=8)
    return module


def test_only_linears_with_scales_are_swapped():
    module = transformed(checkpoint())
    assert type(module.up) is Int8DynActInt4WeightLinear
    assert type(module.plain) is nn.Linear
    assert type(module.output) is Int8DynActInt8WeightLinear
    assert type(module.embed) is QuantizedGroupEmbedding
    assert type(transformed(checkpoint(), weight_only=True).up) is WeightOnlyInt4Linear


def test_one_state_dict_serves_both_schemes_and_is_left_unchanged():
    weights = checkpoint()
    sanitize_checkpoint_from_pre_quantization(weights)
    before = copy.deepcopy(weights)
    results = []
    for weight_only in (False, True):
        module = transformed(weights, weight_only)
        module.load_state_dict(weights, strict=False, assign=True)
        results.append(module(torch.arange(10)))
    assert not torch.equal(*results)
    dynamic, weight_only = results
    assert (dynamic - weight_only).norm() < 0.02 * weight_only.norm()
    for name, tensor in before.items():
        assert torch.equal(weights[name], tensor)


def test_sanitize_makes_contiguous_and_drops_ones():
    strided = torch.arange(12.0).reshape(3, 4).T
    weights = {"a": strided, "b": torch.ones(5, 1), "c": torch.ones(2, 3)}
    kept = weights["c"]
    sanitize_checkpoint_from_pre_quantization(weights)
    assert weights["a"].is_contiguous()
    assert torch.equal(weights["a"], strided)
    assert weights["b"].shape == (5,)
    assert weights["c"].data_ptr() == kept.data_ptr()


def test_a_shared_linear_is_swapped_in_both_its_places():
    shared = nn.Linear(32, 32, bias=False)
    module = nn.ModuleDict({"first": shared, "second": shared})
    weights = {"first.weight": torch.zeros(32, 32, dtype=torch.int8)}
    weights["first.scales"] = torch.ones(32, 1)
    transform_linear_for_pre_quantization(module, weights, 32, torch.float32)
    assert isinstance(module["first"], Int8DynActInt4WeightLinear)


def drop(name):
    return lambda weights: weights.pop(name)


def put(name, tensor):
    return lambda weights: weights.update({name: tensor})


ERRORS = {
    "wrong group count": (
        put("up.scales", torch.ones(32, 1)),
        r"up\.scales: has shape \[32, 1\], expected \[32, 2\]",
    ),
    "wrong scales dtype": (
        put("up.scales", torch.ones(32, 2).half()),
        r"up\.scales: has dtype torch.float16, expected torch.float32",
    ),
    "floating weight": (
        put("up.weight", torch.ones(32, 64)),
        r"up\.weight: has dtype torch.float32, expected torch.int8",
    ),
    "wrong weight shape": (
        put("up.weight", torch.zeros(32, 32, dtype=torch.int8)),
        r"up\.weight: has shape \[32, 32\], expected \[32, 64\]",
    ),
    "scales without weight": (drop("up.weight"), r"up\.weight: is missing"),
    "asymmetric": (
        put("up.zeros", torch.eye(32, 2)),
        r"up\.zeros: holds non-zero zero points",
    ),
    "asymmetric output": (
        put("output.zeros", torch.ones(10)),
        r"output\.zeros: holds non-zero zero points",
    ),
    "wrong embedding": (
        put("embed.scales", torch.ones(9)),
        r"embed\.scales: has shape \[9\], expected \[10\]",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_tensor_what_was_found_and_what_was_expected(name):
    spoil, message = ERRORS[name]
    weights = checkpoint()
    spoil(weights)
    with pytest.raises(InputError, match=message):
        transformed(weights)


def test_group_sizes_are_the_documented_ones():
    with pytest.raises(InputError, match="group size is 48, expected one of 16, 32, 64, 128, 256"):
        transform_linear_for_pre_quantization(Tiny(), checkpoint(), 48, torch.float32)


def test_a_refused_checkpoint_leaves_the_module_whole():
    module = Tiny()
    weights = checkpoint()
    weights["plain.weight"] = torch.zeros(32, 32, dtype=torch.int8)
    weights["plain.scales"] = torch.ones(32, 3)
    with pytest.raises(InputError, match=r"plain\.scales"):
        transform_linear_for_pre_quantization(module, weights, 32, torch.float32)
    assert type(module.up) is nn.Linear
