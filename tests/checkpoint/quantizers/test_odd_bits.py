"""Numbers of 3, 5, 6 and 7 bits, which words of 32 do not hold a whole number of."""

import pytest
import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.compressed_tensors import COMPRESSED_TENSORS
from quatrain.checkpoint.quantizers.gptq import GPTQ
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.errors import InputError

ROWS, COLUMNS, GROUPS = 64, 96, 3


def numbers(bits, *shape):
    return torch.randint(0, 1 << bits, shape, generator=torch.Generator().manual_seed(bits))


def as_int32(words):
    return (words - ((words >> 31) << 32)).int()


def in_a_stream(rows, bits):
    """[R, C] numbers to int32, one after the other, as compressed-tensors 0.20 has them."""
    count = rows.shape[1]
    words = torch.zeros((len(rows), -(-count * bits // 32) + 1), dtype=torch.int64)
    for place in range(count):
        word, shift = divmod(place * bits, 32)
        shifted = rows[:, place] << shift
        words[:, word] |= shifted & 0xFFFFFFFF
        words[:, word + 1] |= shifted >> 32
    return as_int32(words[:, :-1])


def in_whole_words(rows, bits):
    """Likewise 32 // bits in each word, as releases before have them."""
    count = 32 // bits
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % count))
    return as_int32((padded.unflatten(1, (-1, count)) << torch.arange(count) * bits).sum(-1))


def in_threes(rows):
    """As AutoGPTQ's `pack` has 32 numbers of 3 bits in 3 words: ten and two bits of the next, one
    bit, ten and one bit of the next, two bits and ten."""
    words = torch.zeros((len(rows), rows.shape[1] // 32, 3), dtype=torch.int64)
    for index, group in enumerate(rows.unflatten(1, (-1, 32)).unbind(1)):
        for place in range(10):
            words[:, index, 0] |= group[:, place] << 3 * place
            words[:, index, 1] |= group[:, 11 + place] << 3 * place + 1
            words[:, index, 2] |= group[:, 22 + place] << 3 * place + 2
        words[:, index, 0] |= (group[:, 10] & 3) << 30
        words[:, index, 1] |= group[:, 10] >> 2 | (group[:, 21] & 1) << 31
        words[:, index, 2] |= group[:, 21] >> 1
    return as_int32(words.flatten(1))


def read(quantizer, parts, settings):
    stored = {
        name: StoredTensor(tuple(part.shape), part.dtype, lambda part=part: part)
        for name, part in parts.items()
    }
    return quantizer.read(Parts(stored, "f", "file"), settings)


def of_compressed_tensors(bits, weights, zeros, pack):
    parts = {
        "weight_packed": pack(weights, bits),
        "weight_zero_point": pack(zeros.t().contiguous(), bits).t(),
        "weight_scale": torch.ones(ROWS, GROUPS),
        "weight_shape": torch.tensor([ROWS, weights.shape[1]]),
    }
    of_weights = {"num_bits": bits, "symmetric": False, "group_size": weights.shape[1] // GROUPS}
    return parts, {"config_groups": {"g": {"targets": ["Linear"], "weights": of_weights}}}


@pytest.mark.parametrize("pack", [in_a_stream, in_whole_words])
@pytest.mark.parametrize("bits", [3, 5, 6, 7])
@pytest.mark.parametrize("columns", [COLUMNS, 102])
def test_compressed_tensors_of_either_packing(bits, pack, columns):
    weights, zeros = numbers(bits, ROWS, columns), numbers(bits, ROWS, GROUPS)
    parts, settings = of_compressed_tensors(bits, weights, zeros, pack)
    linear, middle = read(COMPRESSED_TENSORS, parts, settings), 1 << (bits - 1)
    assert linear.shape == (ROWS, columns)
    assert linear.zeros is not None
    assert torch.equal(linear.values(), (weights - middle).to(torch.int8))
    assert torch.equal(linear.zeros(), (zeros - middle).to(torch.int8))


def test_a_shape_that_words_of_numbers_do_not_hold():
    parts, settings = of_compressed_tensors(
        3, numbers(3, ROWS, COLUMNS), numbers(3, ROWS, GROUPS), in_a_stream
    )
    parts["weight_shape"] = torch.tensor([ROWS, 64])
    with pytest.raises(InputError, match=r"is \[64, 64\], but its rows of 9 words do not hold"):
        read(COMPRESSED_TENSORS, parts, settings)


@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
def test_gptq_of_3_bits(form):
    weights, zeros = numbers(3, ROWS, COLUMNS), numbers(3, GROUPS, ROWS)
    less = zeros - 1 & 7 if form == "gptq" else zeros
    parts = {
        "qweight": in_threes(weights).t(),
        "qzeros": in_threes(less),
        "scales": torch.ones(GROUPS, ROWS),
    }
    linear = read(GPTQ, parts, {"bits": 3, "group_size": 32, "checkpoint_format": form})
    assert (linear.shape, linear.bits) == ((ROWS, COLUMNS), 3)
    assert linear.zeros is not None
    assert torch.equal(linear.values(), (weights - 4).to(torch.int8))
    assert torch.equal(linear.zeros(), (zeros - 4).t().to(torch.int8))


def test_gptq_of_3_bits_that_is_not_whole():
    parts = {
        "qweight": torch.zeros(8, ROWS, dtype=torch.int32),
        "qzeros": torch.zeros(1, 6, dtype=torch.int32),
        "scales": torch.ones(1, ROWS),
    }
    with pytest.raises(InputError, match=r"qweight has 8 rows of words, expected a multiple of 3"):
        read(GPTQ, parts, {"bits": 3})


def in_planes(rows, bits):
    """As GPTQModel 7.4's `planar_pack_rows` and `planar_pack_cols` have 32 numbers in `bits` words:
    each plane of 8, 4, 2 or 1 bits by itself, the low one first."""
    blocks, words, shift = rows.unflatten(1, (-1, 32)), [], 0
    for width in (plane for plane in (8, 4, 2, 1) if bits & plane):
        plane = blocks >> shift & (1 << width) - 1
        places = torch.arange(32 // width) * width
        words.append((plane.unflatten(2, (width, -1)) << places).sum(-1))
        shift += width
    return as_int32(torch.cat(words, -1).flatten(1))


@pytest.mark.parametrize("bits", range(2, 9))
def test_gptq_in_planes(bits):
    weights, zeros = numbers(bits, ROWS, COLUMNS), numbers(bits, GROUPS, ROWS)
    parts = {
        "qweight": in_planes(weights, bits).t(),
        "qzeros": in_planes(zeros, bits),
        "scales": torch.ones(GROUPS, ROWS),
    }
    settings = {"bits": bits, "group_size": 32, "checkpoint_format": "gptq_p"}
    GPTQ.check(settings, "file")
    linear, middle = read(GPTQ, parts, settings), 1 << (bits - 1)
    assert (linear.shape, linear.bits) == ((ROWS, COLUMNS), bits)
    assert linear.zeros is not None
    assert torch.equal(linear.values(), (weights - middle).to(torch.int8))
    assert torch.equal(linear.zeros(), (zeros.t() - middle).to(torch.int8))


def test_gptq_in_half_a_block_of_planes():
    parts = {
        "qweight": torch.zeros(3, ROWS).int(),
        "qzeros": torch.zeros(1, ROWS * 6 // 32).int(),
        "scales": torch.ones(1, ROWS),
    }
    with pytest.raises(InputError, match="3 rows of words, expected a multiple of 6 for 6-bit"):
        read(GPTQ, parts, {"bits": 6, "format": "gptq_p"})
    parts = {
        "qweight": torch.zeros(4, 48).int(),
        "qzeros": torch.zeros(1, 6).int(),
        "scales": torch.ones(1, 48),
    }
    with pytest.raises(InputError, match="48 zero points a group, expected a multiple of 32 in"):
        read(GPTQ, parts, {"bits": 4, "format": "gptq_p"})
