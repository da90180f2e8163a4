"""Linears packed by AutoGPTQ, AutoAWQ and compressed-tensors themselves are read bit for bit."""

import pytest
import torch
from safetensors.torch import load_file
from tests.support.formats import quantized_folders as folders
from tests.support.paths import WRITTEN_ELSEWHERE

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers import QUANTIZERS
from quatrain.checkpoint.quantizers.parts import Parts

PACK = {
    "gptq": folders.pack_gptq,
    "awq": folders.pack_awq,
    "compressed-tensors": folders.pack_compressed,
}


@pytest.fixture(scope="module")
def tensors():
    return load_file(WRITTEN_ELSEWHERE / "linears.safetensors")


def parts_of(tensors, method, kind):
    prefix = f"{method}.{kind}."
    return {name[len(prefix) :]: part for name, part in tensors.items() if name.startswith(prefix)}


def read(tensors, method, kind):
    stored = {
        name: StoredTensor(tuple(part.shape), part.dtype, lambda part=part: part)
        for name, part in parts_of(tensors, method, kind).items()
    }
    return QUANTIZERS[method].read(Parts(stored, "linear", "file"), folders.SETTINGS[method])


@pytest.mark.parametrize("method", PACK)
@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_weights_are_the_writers(tensors, method, kind):
    linear = read(tensors, method, kind)
    values, scales = linear.values(), linear.scales().float()
    zeros = linear.zeros() if linear.zeros else torch.zeros(64, 3)
    assert values.dtype == torch.int8 and int(values.min()) == -8 and int(values.max()) == 7
    assert bool(zeros.any()) == (kind == "asymmetric")
    weight = (values.view(64, 3, 32) - zeros[..., None]) * scales[..., None]
    assert torch.equal(weight.view(64, 96), tensors[f"{kind}.weight"])


@pytest.mark.parametrize("method", PACK)
@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_the_tests_pack_as_the_writers_do(tensors, method, kind):
    linear = read(tensors, method, kind)
    zeros = linear.zeros() if linear.zeros else None
    packed = PACK[method](linear.values(), linear.scales(), zeros)
    written = parts_of(tensors, method, kind)
    assert set(packed) == set(written)
    for name, part in written.items():
        assert torch.equal(packed[name], part), name
