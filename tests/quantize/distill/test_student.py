"""What is trained computes what the checkpoint's own backbone does, and learns everywhere."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import saved
from tests.support.thorough import thorough

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.open import open_checkpoint
from quatrain.int4 import Scheme
from quatrain.linear.int4 import compute_as
from quatrain.quantize.distill.student import Student
from quatrain.quantize.distill.student_layers import Activations, ScaledIntegers, StudentLinear
from quatrain.quantize.pipeline import quantize_model

TOKENS = torch.arange(24).view(2, 12)
FEW = {"llama tied", "gemma3", "llama4"}


@pytest.fixture(scope="module", params=[*sorted(FEW), *thorough(sorted(ROWS.keys() - FEW))])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory) -> Checkpoint:
    folder: Path = tmp_path_factory.mktemp("family")
    model = saved(model_of(ROWS[request.param]), folder / "m")
    quantize_model(model, folder / "out", method="rtn", embedding="int4")
    return open_checkpoint(folder / "out")


def student_of(checkpoint: Checkpoint, dtype: torch.dtype) -> Student:
    backbone = build_backbone(checkpoint.config, checkpoint.tensors, Scheme.WEIGHT_ONLY)
    return Student(backbone, set(checkpoint.tensors), dtype)


@pytest.mark.parametrize("scheme", Scheme)
def test_it_computes_the_same(checkpoint: Checkpoint, scheme: Scheme) -> None:
    """In float32, and near it in bfloat16, whose roundings are the cruder ones."""
    backbone = build_backbone(checkpoint.config, checkpoint.tensors, scheme)
    compute_as(backbone, VULKAN_ARITHMETIC)
    expected = torch.cat([backbone.hidden(text[None], 0) for text in TOKENS])
    int8 = scheme == Scheme.DYNAMIC_INT8
    for dtype, most in ((torch.float32, 0.02 if int8 else 1e-4), (torch.bfloat16, 0.1)):
        found = student_of(checkpoint, dtype).hidden(TOKENS, int8)
        if checkpoint.config.weigh_experts == "outputs" and dtype == torch.bfloat16:
            # Its roundings pick another expert for some tokens, which tells nothing of the others.
            errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
            assert errors.median() < most
        else:
            assert (found - expected).norm() < most * expected.norm()


def test_all_of_it_learns(checkpoint: Checkpoint) -> None:
    student = student_of(checkpoint, torch.bfloat16)
    student.backbone.logits(student.hidden(TOKENS, int8=True)).square().mean().backward()
    scales, vectors = student.factors()
    made = student.tensors()
    assert made.keys() == {
        name
        for name in checkpoint.tensors
        if name.endswith((".scales", "norm.weight", "norm_fn.weight"))
    }
    for factor in scales + vectors:
        assert factor.grad is not None and torch.isfinite(factor.grad).all()
    assert any(factor.grad.any() for factor in scales)


def test_integers_that_are_one_off_are_found() -> None:
    """From outputs alone, by the gradient that passes their rounding by."""
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(-7, 8, (16, 64), generator=generator)
    off = torch.randint(-1, 2, right.shape, generator=generator)
    scales = torch.rand(16, 2, generator=generator).bfloat16().float() + 0.5
    begun = (right + off).clamp(-8, 7).to(torch.int8)
    weight = ScaledIntegers(begun, scales, trained=False)
    weight.learn(begun * scales.repeat_interleave(32, 1))
    linear = StudentLinear(weight, None, Activations(torch.float32))
    assert weight.latent is not None and torch.equal(weight.integers(), begun)
    optimizer = torch.optim.Adam([weight.latent], lr=0.03)
    wished = right * scales.bfloat16().float().repeat_interleave(32, 1)
    for _ in range(200):
        x = torch.randn(128, 64, generator=generator)
        optimizer.zero_grad()
        (linear(x) - x @ wished.T).square().mean().backward()
        optimizer.step()
    assert (weight.integers() == right).float().mean() > 0.99 > (begun == right).float().mean()


def test_rows_of_a_table_are_those_of_its_weight() -> None:
    """Also where what its integers are rounded from has left the range of int4."""
    table = ScaledIntegers(torch.zeros(4, 64, dtype=torch.int8), torch.ones(4, 2), trained=False)
    table.learn(torch.linspace(-12, 12, 64).repeat(4, 1))
    assert table.latent is not None
    with torch.no_grad():
        table.latent += torch.linspace(-12, 12, 64)
    picked = torch.tensor([2, 0])
    assert torch.equal(table.rows(picked), table.weight(torch.float32)[picked])


@pytest.mark.parametrize("integers_too", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_gradients_are_those_of_the_dequantized_weight(held, integers_too) -> None:
    """Of a product with it as autograd has them, in two calls or more."""
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(-8, 8, (16, 64), generator=generator).to(torch.int8)
    # Of few bits, so that the order of a sum changes nothing.
    scales = torch.randint(1, 8, (16, 2), generator=generator) / 8
    bias = torch.randint(-4, 5, (16,), generator=generator).float()
    calls = torch.randint(-4, 5, (3, 2, 5, 64), generator=generator).float()
    wished = torch.randint(-4, 5, (3, 2, 5, 16), generator=generator).float()
    found = []
    for by_hand in (False, True):
        weight = ScaledIntegers(integers, scales, trained=True)
        if integers_too:
            weight.learn(integers * scales.repeat_interleave(32, 1))
        linear = StudentLinear(weight, bias, Activations(torch.float32))
        inputs = calls.clone().requires_grad_()
        if by_hand:
            product = inputs @ weight.weight(torch.float32).T + bias
            (product * wished).sum().backward()
        else:
            with linear.held() if held else nullcontext():
                for x, wish in zip(inputs, wished, strict=True):
                    (linear(x) * wish).sum().backward()
        latent = weight.latent
        found.append([inputs.grad, weight.factor.log.grad, None if latent is None else latent.grad])
    torch.testing.assert_close(*found, rtol=0, atol=0)
