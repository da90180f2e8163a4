"""Folders of models that HQQ rounded, as transformers and hqq save them, open in floating point.

Packed here from the format; by hand all packings and axes were compared with hqq 0.2.8's own
`Quantizer.dequantize`."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models import tiny_models as tiny
from tests.support.models.peers import change_config

from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.errors import InputError

GROUP, MODULE = 32, "model.layers.0.mlp.down_proj"
NAME = "layers.0.feed_forward.w2.weight"
WORDS = {"8bit_u8": 1, "4bit_u8": 2, "3bit_32": 10, "2bit_u8": 4, "1bit_u8": 8}


def text(value: str) -> torch.Tensor:
    return torch.tensor([ord(letter) for letter in value], dtype=torch.uint8)


def rounded(weight: torch.Tensor, packing: str, axis: int) -> tuple[dict, torch.Tensor]:
    """(the tensors of `weight` [N, K] in HQQ's format, what they stand for)"""
    bits, kind = int(packing[0]), torch.int32 if packing == "3bit_32" else torch.uint8
    groups = weight.reshape(-1, GROUP) if axis else weight.reshape(GROUP, -1)
    low, high = groups.amin(axis, keepdim=True), groups.amax(axis, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    zero = -low / scale
    numbers = (groups / scale + zero).round().clamp(0, 2**bits - 1).int()
    read = ((numbers - zero) * scale).reshape(weight.shape)
    count = WORDS[packing]
    short = -len(numbers) % count
    whole = torch.cat((numbers, numbers.new_zeros(short, numbers.shape[1])))
    words = torch.zeros_like(whole[: len(whole) // count])
    for part in whole.chunk(count):
        words = words << bits | part
    parts = {
        "W_q": words.to(kind), "scale": scale, "zero": zero, "packing": text(packing),
        "shape": torch.tensor(weight.shape), "axis": torch.tensor(axis, dtype=torch.int32),
        "group_size": torch.tensor(GROUP, dtype=torch.int32), "nbits": torch.tensor(bits),
        "compute_dtype": text("torch.float16"), "encoded_state_dict": torch.tensor(1),
        "view_as_float": torch.tensor(0, dtype=torch.uint8), "optimize": torch.tensor(1),
    }  # fmt: skip
    return parts, read


def write_hqq(folder, kind="4bit_u8", along=1, **other):
    """(a folder with one linear in HQQ's format, what that stands for)"""
    tiny.write_hugging_face(folder)
    tensors = load_file(folder / "model.safetensors")
    parts, read = rounded(tensors.pop(f"{MODULE}.weight").float(), kind, along)
    named = {f"{MODULE}.{part}": tensor for part, tensor in (parts | other).items()}
    kept = {name: tensor for name, tensor in named.items() if tensor is not None}
    save_file(tensors | kept, folder / "model.safetensors")
    said = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}
    return change_config(folder, quantization_config=said), read


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("packing", WORDS)
def test_what_the_words_stand_for(tmp_path, packing, axis):
    folder, read = write_hqq(tmp_path, packing, axis)
    assert not is_quantized(folder)
    model = open_float_model(folder)
    torch.testing.assert_close(model.tensors[NAME], read)
    assert "rounded by HQQ" in model.notes[0]
    with pytest.raises(InputError, match="run `quatrain quantize"):
        open_checkpoint(folder)


def test_words_that_are_called_floating_point(tmp_path):
    parts, _ = rounded(tiny.float_tensors()[NAME], "4bit_u8", 1)
    folder, read = write_hqq(tmp_path, W_q=parts["W_q"].view(torch.float16))
    torch.testing.assert_close(open_float_model(folder).tensors[NAME], read)


@pytest.mark.parametrize(
    "other",
    [
        {"scale": None},
        {"W_q": torch.zeros(5, 32, dtype=torch.uint8)},
        {"W_q": torch.zeros(96, 32, dtype=torch.int32)},
        {"zero": torch.zeros(192)},
        {"packing": text("5bit_u8")},
        {"packing": None},
        {"shape": torch.tensor([64, 96, 1])},
        {"axis": torch.tensor([0, 1])},
        {"group_size": torch.tensor(0)},
    ],
)
def test_parts_that_do_not_fit(tmp_path, other):
    folder, _ = write_hqq(tmp_path, **other)
    with pytest.raises(InputError, match=rf"{MODULE} is quantized by HQQ, .*; download"):
        open_float_model(folder)


def test_settings_that_were_left_beside_other_weights(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    change_config(folder, quantization_config={"quant_method": "hqq"})
    with pytest.raises(InputError, match="quantized by hqq, but all its tensors are in floating"):
        open_float_model(folder)


def qmodel(parts: dict, of_older: bool) -> dict:
    """`parts` as HQQ's own file has a linear's."""
    said = {
        "axis": int(parts["axis"]), "group_size": int(parts["group_size"]), "nbits": 4,
        "packing": "4bit_u8", "shape": torch.Size(parts["shape"].tolist()), "quant_zero": False,
        "scale": parts["scale"], "zero": parts["zero"], "compute_dtype": torch.float16,
    }  # fmt: skip
    numbers = {"W_q": torch.nn.Parameter(parts["W_q"], requires_grad=False), "bias": None}
    return numbers | ({"meta": said} if of_older else said | {"offload_meta": False})


@pytest.mark.parametrize("of_older", [False, True])
def test_hqqs_own_file(tmp_path, of_older):
    folder = tiny.write_hugging_face(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts, read = rounded(tensors.pop(f"{MODULE}.weight").float(), "4bit_u8", 1)
    modules = {name.removesuffix(".weight"): {"weight": t} for name, t in tensors.items()}
    linear = qmodel(parts, of_older)
    torch.save(modules | {MODULE: linear}, folder / "qmodel.pt")
    assert not is_quantized(folder)
    model = open_float_model(folder)
    torch.testing.assert_close(model.tensors[NAME], read)
    assert set(model.tensors) == set(tiny.float_tensors())
    with pytest.raises(InputError, match="run `quatrain quantize"):
        open_checkpoint(folder)
    again = {"meta": linear["meta"] | {"zero_q": parts["zero"]}} if of_older else {"zero_q": 1}
    torch.save(modules | {MODULE: linear | again}, folder / "qmodel.pt")
    with pytest.raises(InputError, match=f"zero points of {MODULE} are quantized too, .*; quant"):
        open_float_model(folder)
