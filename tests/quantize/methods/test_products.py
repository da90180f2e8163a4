"""Products in pieces, against torch's own in float64, and by any number of threads."""

import gc
import os
import subprocess
import sys
import weakref

import pytest
import torch

from quatrain.quantize.methods.products import (
    add_product,
    cholesky,
    compute_in_pieces,
    compute_linear,
    product,
    solve,
)

_DIGEST = """
import hashlib, torch
from quatrain.quantize.methods.products import add_product, cholesky, compute_in_pieces, solve
made = torch.Generator().manual_seed(0)
x, weight = (torch.randn(rows, 1100, generator=made) for rows in (1500, 300))
torch.manual_seed(0)
block = torch.nn.Sequential(torch.nn.Linear(1100, 2816), torch.nn.Linear(2816, 1024))
compute_in_pieces(block)
with torch.inference_mode():
    y, moments = block(x), torch.eye(1100)
    add_product(moments, x.T, x, symmetric=True)
    factor = cholesky(moments.double())
    digest = hashlib.sha256()
    for part in (y, moments.tril(), factor, solve(weight, factor)):
        digest.update(part.numpy().tobytes())
print(torch.get_num_threads(), digest.hexdigest())
"""


@pytest.mark.parametrize("bias", [None, torch.randn(5)])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_linear(rows, bias):
    x, weight = torch.randn(rows, 8), torch.randn(5, 8)
    made = torch.empty(rows, 5)
    with torch.inference_mode():
        compute_linear(x, weight, bias, made)
    assert torch.allclose(made, torch.nn.functional.linear(x, weight, bias), atol=1e-5)


@torch.inference_mode()
def test_the_linears_of_a_block():
    block, x = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.Tanh()), torch.randn(2, 3, 8)
    expected = block(x)
    compute_in_pieces(block)
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_a_block_that_is_left_frees_its_memory_at_once():
    """Not when Python next looks for what refers to itself: a layer may have gigabytes."""
    block = torch.nn.Sequential(torch.nn.Linear(8, 5))
    compute_in_pieces(block)
    weight = weakref.ref(block[0].weight)
    gc.disable()
    try:
        del block
        assert weight() is None
    finally:
        gc.enable()


# Of one piece and of several, the last of them smaller.
@pytest.mark.parametrize(("m", "k", "n"), [(2, 3, 4), (1030, 700, 700), (300, 2, 5000)])
@torch.inference_mode()
def test_products(m, k, n):
    left, right, total = torch.randn(m, k), torch.randn(k, n), torch.randn(m, n)
    exact = left.double() @ right.double()
    assert torch.allclose(product(left, right).double(), exact, atol=1e-3)
    added = total.clone()
    add_product(added, left, right, factor=-0.5)
    assert torch.allclose(added.double(), total.double() - 0.5 * exact, atol=1e-3)


@pytest.mark.parametrize("size", [1, 64, 1023, 1024, 2050])
@torch.inference_mode()
def test_a_cholesky_factor_and_what_it_solves(size):
    noise = torch.randn(size, size, dtype=torch.float64)
    matrix, wanted = noise @ noise.T / size + torch.eye(size), torch.randn(3, size)
    symmetric = torch.zeros(size, size, dtype=torch.float64)
    add_product(symmetric, noise, noise.T / size, symmetric=True)
    symmetric += torch.eye(size)
    factor = cholesky(symmetric)
    assert torch.allclose(factor, torch.linalg.cholesky(matrix), atol=1e-9)
    expected = torch.linalg.solve(matrix, wanted.double().T).T
    assert torch.allclose(solve(wanted, factor).double(), expected, atol=1e-5)


def test_a_matrix_that_has_no_factor_is_told():
    with pytest.raises(torch.linalg.LinAlgError):
        cholesky(-torch.eye(1500, dtype=torch.float64))


def test_the_bytes_do_not_depend_on_the_number_of_threads():
    printed = [
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_DYNAMIC": "FALSE"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for threads in ("1", "3")
    ]
    assert [count for count, _ in printed] == ["1", "3"]
    assert printed[0][1] == printed[1][1]
