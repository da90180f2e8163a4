"""Folders with matrices in FP8 or FP4 open in floating point: each number times its scale."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models import tiny_models as tiny
from tests.support.models.peers import change_config
from tests.support.paths import WRITTEN_ELSEWHERE

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, MadeByRows, StoredTensor
from quatrain.checkpoint.hugging_face.tensors.float8 import in_floating_point
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.errors import InputError

BLOCKS = [48, 40]  # which divide no matrix here
EIGHT = {"num_bits": 8, "type": "float", "symmetric": True}


def compressed(**weights) -> dict:
    groups = {"group_0": {"targets": ["Linear"], "weights": EIGHT | weights}}
    return {"quant_method": "compressed-tensors", "config_groups": groups}


def with_attention() -> dict:
    """As llm-compressor writes if it also rounds what attention reads."""
    stated = compressed(strategy="channel")
    read = {"weights": None, "input_activations": {"num_bits": 8, "type": "float"}}
    stated["config_groups"]["attention"] = read | {"targets": ["LlamaAttention"]}
    return stated


def quark(**others) -> dict:
    """As amd-quark 0.13 states it; its own model of such a file gave the same logits to 7e-7."""
    stated = {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_channel", "ch_axis": 0}}
    settings = {"quant_method": "quark", "algo_config": None, "layer_type_quant_config": {}}
    return settings | {"global_quant_config": stated, "layer_quant_config": {}} | others


# Its settings; what scales are called; how many rows and columns share one, None for all of them.
FORMATS = {
    "fp8": ({"quant_method": "fp8", "weight_block_size": BLOCKS}, "_scale_inv", BLOCKS),
    "fp8, one": ({"quant_method": "fp8", "activation_scheme": "static"}, "_scale_inv", None),
    "compressed-tensors": (compressed(strategy="channel"), "_scale", [1, 1000]),
    "and what attention reads": (with_attention(), "_scale", [1, 1000]),
    "in blocks": (compressed(block_structure=BLOCKS), "_scale", BLOCKS),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, "_scale", [1, 1000]),
    "modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, "_scale", None),
    "modelopt, by row": (
        {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, "_scale", [1, 1000]
    ),
    "no blocks": ({"quant_method": "fp8", "weight_block_size": [64]}, "_scale_inv", None),
    "no group": ({"quant_method": "fp8", "config_groups": {"a": {"weights": 1}}}, "_scale", None),
    "nothing stated": (None, "_scale", [1, 1000]),
    "ue8m0": (
        {"quant_method": "fp8", "weight_block_size": BLOCKS, "scale_fmt": "ue8m0"}, "_scale_inv",
        BLOCKS, torch.float8_e8m0fnu,
    ),
    "mxfp8": ({"quant_method": "mxfp8"}, "_scale_inv", [1, 32], torch.uint8),
    "modelopt's": (
        {"quant_method": "modelopt", "quant_algo": "MXFP8"}, "_scale", [1, 32], torch.uint8
    ),
    "compressed-tensors'": (compressed(group_size=32), "_scale", [1, 32], torch.uint8),
    "auto-round": ({"quant_method": "auto-round", "data_type": "fp"}, "_scale", [1, 1000]),
    "quark": (quark(), "_scale", [1, 1000]),
    "quark, one": (quark(), "_scale", None),
}  # fmt: skip


def write_float8(folder, settings, suffix, blocks, kind=torch.float32):
    """(a folder, what its matrices stand for by Meta name). Scales of another `kind` are powers of
    2."""
    generator = torch.Generator().manual_seed(0)
    named, read = {}, {}
    for name, tensor in tiny.float_tensors().items():
        theirs = tiny.renamed(name, tiny.HF_NAMES, "model.layers")
        named[theirs] = read[name] = tensor
        if tensor.ndim != 2 or "layers." not in name:
            continue
        rows, columns = tensor.shape
        high, wide = blocks or tensor.shape
        grid = torch.rand(-(-rows // high), -(-columns // wide), generator=generator) + 0.5
        if kind != torch.float32:
            grid = (4 * grid - 4).round().exp2()
        numbers = (tensor * 8).to(torch.float8_e4m3fn)
        spread = torch.kron(grid, torch.ones(high, wide))[:rows, :columns]
        read[name] = numbers.float() * spread
        stored = grid.log2() + 127 if kind == torch.uint8 else grid
        scales = stored.reshape(()) if blocks is None else stored.to(kind)
        of_activations = {theirs.removesuffix("weight") + "input_scale": torch.ones(())}
        named |= {theirs: numbers, theirs + suffix: scales, **of_activations}
    tiny.write_hugging_face(folder)
    save_file(named, folder / "model.safetensors")
    return change_config(folder, quantization_config=settings), read


@pytest.mark.parametrize("form", FORMATS)
def test_float8_is_floating_point(tmp_path, form):
    folder, read = write_float8(tmp_path, *FORMATS[form])
    assert not is_quantized(folder)
    model = open_float_model(folder)
    assert set(model.tensors) == set(read)
    for name, tensor in read.items():
        assert torch.equal(model.tensors[name], tensor), name
    assert "its matrices are in FP8" in model.notes[0]
    with pytest.raises(InputError, match="run `quatrain quantize"):
        open_checkpoint(folder)


@pytest.mark.parametrize("stated", [{"weight_scale_semantics": "inverse"}, {"method": "fp8"}])
@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_scales_of_gptqmodel_that_numbers_are_divided_by(tmp_path, stated, blocks):
    """Its `quantize_fp8_weight` multiplies by what it stores as weight_scale_inv."""
    settings = {"quant_method": "fp8", "weight_block_size": blocks} | stated
    folder, read = write_float8(tmp_path, settings, "_scale_inv", blocks)
    model, name = open_float_model(folder), "layers.0.feed_forward.w2.weight"
    stored = load_file(folder / "model.safetensors")
    numbers = stored["model.layers.0.mlp.down_proj.weight"].float()
    scales = read[name] / numbers  # what the numbers are multiplied by in DeepSeek's files
    expected = torch.where(numbers == 0, 0, numbers / scales)
    torch.testing.assert_close(model.tensors[name], expected)
    change_config(folder, quantization_config=settings | {"weight_scale_semantics": "direct"})
    with pytest.raises(InputError, match="weight_scale_semantics is 'direct', expected 'inverse'"):
        open_float_model(folder)


@pytest.mark.parametrize("form", ["fp8", "ue8m0"])
def test_float8_in_a_pickled_file(tmp_path, form):
    """PyTorch pickles tensors of its newer types otherwise."""
    folder, read = write_float8(tmp_path, *FORMATS[form])
    file = folder / "model.safetensors"
    torch.save(load_file(file), folder / "pytorch_model.bin")
    file.unlink()
    model = open_float_model(folder)
    assert all(torch.equal(model.tensors[name], tensor) for name, tensor in read.items())


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (None, r"down_proj\.weight is in FP8, but .*_scale is missing; download"),
        (torch.ones(5, 1), r"down_proj\.weight is in FP8 .*scales are float32 \[5, 1\], expected"),
        (torch.ones(2, 2, 2), r"scales are float32 \[2, 2, 2\], expected"),
        (torch.ones(64, 1).int(), r"scales are int32 \[64, 1\], expected"),
        (torch.ones(0, 1), r"scales are float32 \[0, 1\], expected"),
    ],
)
def test_scales_that_are_missing_or_do_not_fit(tmp_path, scales, message):
    folder, _ = write_float8(tmp_path, *FORMATS["compressed-tensors"])
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight_scale"
    tensors.pop(name)
    save_file(tensors | ({} if scales is None else {name: scales}), folder / "model.safetensors")
    with pytest.raises(InputError, match=message):
        open_float_model(folder)


def lazy(tensors: dict[str, torch.Tensor]) -> LazyTensors:
    return LazyTensors(
        {name: StoredTensor(it.shape, it.dtype, lambda it=it: it) for name, it in tensors.items()}
    )


@pytest.mark.parametrize(
    ("method", "grid", "rows", "columns"),
    [
        ("fp8", (3, 2, 4), 48, 16),  # as transformers 5 has experts
        ("fp8", (3, 1, 1), 96, 64),
        ("fp8", (), 96, 64),
        ("fbgemm_fp8", (3, 1, 64), 96, 1),  # Llama 4's, [K, N] each
        ("fbgemm_fp8", (3, 64, 1), 96, 1),
    ],
)
def test_experts_in_one(method, grid, rows, columns):
    numbers = torch.randn(3, 96, 64).to(torch.float8_e4m3fn)
    scales = torch.rand(grid) + 0.5
    name = "model.layers.0.mlp.experts.gate_up_proj"
    suffix = "_scale" if method == "fbgemm_fp8" else "_scale_inv"
    stored = {name: numbers, name + suffix: scales}
    held = lazy(stored)
    settings = {"quant_method": method, "weight_block_size": [rows, columns]}
    (found,) = in_floating_point(held, settings, "m")[0].stored.values()
    whole = scales.reshape(-1, 96 // rows, 64 // columns).expand(3, -1, -1)
    factors = whole.repeat_interleave(rows, 1).repeat_interleave(columns, 2)
    assert torch.equal(found.load(), numbers.float() * factors)


def test_experts_whose_scales_do_not_fit():
    name = "model.layers.0.mlp.experts.down_proj"
    stored = {
        name: torch.zeros(3, 96, 64).to(torch.float8_e4m3fn),
        f"{name}_scale": torch.ones(2, 96, 1),
    }
    held = lazy(stored)
    with pytest.raises(InputError, match=r"in FP8 of shape \[3, 96, 64\], but its scales are"):
        in_floating_point(held, {"quant_method": "fp8"}, "m")


def test_a_scale_that_is_missing_where_nothing_is_stated(tmp_path):
    folder, _ = write_float8(tmp_path, *FORMATS["nothing stated"])
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight_scale")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"1\.mlp\.up_proj\.weight is in FP8, .*_scale is missing"):
        open_float_model(folder)


def test_float8_without_settings_or_scales_is_what_it_says(tmp_path):
    folder = tiny.write_hugging_face(tmp_path, dtype=torch.float8_e5m2)
    name = "layers.0.feed_forward.w2.weight"
    expected = tiny.float_tensors()[name].to(torch.float8_e5m2).float()
    assert torch.equal(open_float_model(folder).tensors[name], expected)


def test_float4_that_nothing_states_is_floating_point(tmp_path):
    """As ModelOpt's first files have it, whose settings are in a file of their own."""
    folder = tiny.write_hugging_face(tmp_path)
    named, module = load_file(folder / "model.safetensors"), "model.layers.0.mlp.down_proj"
    named[f"{module}.weight"] = torch.zeros((64, 48), dtype=torch.uint8)
    named[f"{module}.weight_scale"] = torch.ones(64, 6).to(torch.float8_e4m3fn)
    named[f"{module}.weight_scale_2"] = torch.ones(())
    save_file(named, folder / "model.safetensors")
    assert "its matrices are in FP4" in open_float_model(folder).notes[0]
    with pytest.raises(InputError, match=r"as floating point .*; run `quatrain quantize"):
        open_checkpoint(folder)


def mlx(mode, group_size, bits):
    return {"quantization": {"mode": mode, "group_size": group_size, "bits": bits}}


def of_modelopt(**fields):
    return {"quantization_config": {"quant_method": "modelopt", **fields}}


def of_auto_round(**fields):
    return {"quantization_config": {"quant_method": "auto-round", "data_type": "mx_fp", **fields}}


def of_bitsandbytes(**fields):
    return {"quantization_config": {"quant_method": "bitsandbytes", **fields}}


# What float4.safetensors calls a matrix, as its writer wrote it; what config.json says.
WRITTEN = {
    "mxfp4": ("mxfp4", mlx("mxfp4", 32, 4)),
    "nvfp4": ("nvfp4", mlx("nvfp4", 16, 4)),
    "mxfp8": ("mxfp8", mlx("mxfp8", 32, 8)),
    "NVFP4": ("NVFP4A16", {"quantization_config": compressed(num_bits=4, group_size=16)}),
    "MXFP4": ("MXFP4A16", {"quantization_config": compressed(num_bits=4, group_size=32)}),
    "MXFP6": ("MXFP6A16", {"quantization_config": compressed(num_bits=6, group_size=32)}),
    "auto-round": ("MXFP4A16", of_auto_round()),
    "modelopt": ("NVFP4A16", of_modelopt(quant_algo="NVFP4")),
    "modelopt's mxfp4": ("MXFP4A16", of_modelopt(quant_algo="mxfp4")),
    "modelopt's mixed": (
        "NVFP4A16",
        of_modelopt(
            quant_algo="MIXED_PRECISION",
            quantized_layers={"k": {"quant_algo": "NVFP4"}, "v": {"quant_algo": "FP8"}},
        ),
    ),
    "nothing stated": ("NVFP4A16", {}),
    "bitsandbytes": ("nf4", of_bitsandbytes(load_in_4bit=True)),
    "bitsandbytes' fp4": ("fp4", of_bitsandbytes(load_in_4bit=True)),
    "bitsandbytes of 8 bits": ("int8", of_bitsandbytes(load_in_8bit=True)),
}  # fmt: skip


def write_written(folder, form, **other):
    """(a folder with a matrix in that form, what its writer reads of it)"""
    kind, said = WRITTEN[form]
    made = load_file(WRITTEN_ELSEWHERE / "float4.safetensors")
    parts = {
        name.removeprefix(f"{kind}."): part
        for name, part in made.items()
        if name.startswith(f"{kind}.")
    } | other
    if form.startswith("modelopt"):
        parts["weight"] = parts.pop("weight_packed")
    if form.startswith("modelopt") and kind == "NVFP4A16":
        parts["weight_scale_2"] = 1 / parts.pop("weight_global_scale")
    read = parts.pop("read")
    tiny.write_hugging_face(folder)
    tensors = load_file(folder / "model.safetensors")
    module = "model.layers.0.self_attn.k_proj"
    del tensors[f"{module}.weight"]
    tensors |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
    save_file(tensors, folder / "model.safetensors")
    return change_config(folder, **said), read


@pytest.mark.parametrize("form", WRITTEN)
def test_float4_as_its_writer_reads_it(tmp_path, form):
    of_activations = ("input_global_scale", "q_scale", "kv_scale", "k_zero_point", "k_bias")
    beside = {} if form.startswith("bits") else {name: torch.ones(1) for name in of_activations}
    folder, read = write_written(tmp_path, form, **beside)
    assert not is_quantized(folder)
    model = open_float_model(folder)
    found = model.tensors["layers.0.attention.wk.weight"]
    torch.testing.assert_close(found, read, rtol=1e-6, atol=0)
    rows = model.tensors.rows_of("layers.0.attention.wk.weight")(slice(3, 5))
    assert torch.equal(rows, found[3:5])
    kinds = {"mxfp8": "in FP8", "MXFP6": "in FP6"}
    kind = "rounded by bitsandbytes" if form.startswith("bits") else kinds.get(form, "in FP4")
    assert f"matrices are {kind}. " in model.notes[0]


def test_inputs_that_are_multiplied(tmp_path):
    """As those of an output of attention, before which ModelOpt's AWQ finds no norm."""
    factors = torch.linspace(0.5, 2, 64, dtype=torch.bfloat16)
    folder, read = write_written(tmp_path, "modelopt", pre_quant_scale=factors)
    change_config(folder, **of_modelopt(quant_algo="NVFP4_AWQ"))
    found = open_float_model(folder).tensors["layers.0.attention.wk.weight"]
    torch.testing.assert_close(found, read * factors.float(), rtol=1e-6, atol=0)
    short, _ = write_written(tmp_path / "short", "modelopt", pre_quant_scale=factors[:8])
    with pytest.raises(InputError, match=r"k_proj\.pre_quant_scale is .*, \[64\]; download"):
        open_float_model(short)


def test_matrices_of_two_kinds_are_both_told(tmp_path):
    folder, _ = write_written(tmp_path, "modelopt's mixed")
    tensors, module = load_file(folder / "model.safetensors"), "model.layers.0.self_attn.v_proj"
    tensors[f"{module}.weight"] = tensors[f"{module}.weight"].to(torch.float8_e4m3fn)
    save_file(tensors | {f"{module}.weight_scale": torch.ones(())}, folder / "model.safetensors")
    assert "its matrices are in FP4 and FP8. " in open_float_model(folder).notes[0]


@pytest.mark.parametrize("form", [form for form in WRITTEN if form.startswith("bitsandbytes")])
def test_bitsandbytes_under_the_names_of_gptqmodel(tmp_path, form):
    """7.4's `BitsAndBytesLinear` has buffers, whose names have no dots."""
    folder, read = write_written(tmp_path, form)
    tensors = load_file(folder / "model.safetensors")
    names = {name: re.sub(r"(k_proj\.weight)\.", r"\1_", name) for name in tensors}
    names = {old: re.sub(r"_quant_state\..*", "_quant_state", new) for old, new in names.items()}
    names = {old: new.replace("k_proj.SCB", "k_proj.weight_scb") for old, new in names.items()}
    assert names != dict(zip(names, names, strict=True))
    save_file({names[old]: tensor for old, tensor in tensors.items()}, folder / "model.safetensors")
    model = open_float_model(folder)
    torch.testing.assert_close(model.tensors["layers.0.attention.wk.weight"], read.float())


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        (of_modelopt(quant_algo="fp8_pb_wo"), (128, 128)),
        (of_auto_round(), (1, 32)),
        (of_modelopt(quant_algo="NVFP4"), (1, 16)),
    ],
)
def test_the_last_block_of_a_writer_that_states_none_may_be_a_part(settings, blocks):
    """192 = 128 + 64 columns, not twice 96; ModelOpt's scales have the blocks' own dimensions."""
    shape, generator = (200, 3 * blocks[1] // 2), torch.Generator().manual_seed(0)
    numbers = torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)
    grid = torch.rand([-(-n // b) for n, b in zip(shape, blocks, strict=True)], generator=generator)
    scales = grid[:, None, :, None] if blocks == (128, 128) else grid
    spread = grid.repeat_interleave(blocks[0], 0).repeat_interleave(blocks[1], 1)
    stored = LazyTensors(
        {
            name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)
            for name, tensor in {"a.weight": numbers, "a.weight_scale": scales}.items()
        }
    )
    read, _ = in_floating_point(stored, settings["quantization_config"], "m")
    assert torch.equal(read["a.weight"], numbers.float() * spread[: shape[0], : shape[1]])


@pytest.mark.parametrize("rows, read", [(96, False), (128, True)])
def test_blocks_that_nothing_states(rows, read):
    """Two in 96 rows may be of 64 each, or of 48; two in 128 are of 64."""
    stored = {
        "a.weight": torch.ones(rows, 64).to(torch.float8_e4m3fn),
        "a.weight_scale_inv": torch.tensor([[1.0], [2.0]]),
    }
    lazy = LazyTensors(
        {
            name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)
            for name, tensor in stored.items()
        }
    )
    if not read:
        with pytest.raises(InputError, match=r"weight_block_size, which must be set if"):
            in_floating_point(lazy, {"quant_method": "fp8"}, "m")
    stated = {"quant_method": "fp8"} | ({} if read else {"weight_block_size": [64, 64]})
    found, _ = in_floating_point(lazy, stated, "m")
    assert found["a.weight"][:, 0].tolist() == [1.0] * 64 + [2.0] * (rows - 64)


def test_rows_are_made_without_the_others():
    asked = []

    def rows(some):
        asked.append(some)
        return torch.ones(4, 2)[some]

    stored = StoredTensor((4, 2), torch.float32, MadeByRows((4, 2), rows))
    LazyTensors({"a": stored}).as_float32("m").rows_of("a")(slice(1, 2))
    assert asked == [slice(1, 2)]


@pytest.mark.parametrize(
    "part",
    [
        {"SCB": torch.ones(3)},
        {"weight": torch.zeros(3, 1, dtype=torch.uint8)},
        {"weight.absmax": torch.zeros(31, dtype=torch.uint8)},
        {"weight.nested_quant_map": torch.zeros(16)},
        {"weight.quant_map": torch.zeros(4, 4)},
        {"weight.quant_state.bitsandbytes__nf4": torch.zeros(4, dtype=torch.uint8)},
        {
            "weight.quant_state.bitsandbytes__nf4": torch.tensor(
                list(b'{"shape": [32, 64], "blocksize": 0}'), dtype=torch.uint8
            )
        },
    ],
)
def test_parts_of_bitsandbytes_that_do_not_fit(tmp_path, part):
    form = "bitsandbytes of 8 bits" if "SCB" in part else "bitsandbytes"
    folder, _ = write_written(tmp_path, form, **part)
    with pytest.raises(
        InputError, match=r"k_proj\.weight is quantized by bitsandbytes.*do not fit"
    ):
        open_float_model(folder)


@pytest.mark.parametrize("form", ["NVFP4", "modelopt"])
def test_nvfp4_without_the_scale_of_a_matrix(tmp_path, form):
    folder, _ = write_written(tmp_path, form)
    tensors = load_file(folder / "model.safetensors")
    others = ("weight_global_scale", "weight_scale_2")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(others)}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"k_proj\.weight\S* is in NVFP4, .* is missing; download"):
        open_float_model(folder)


def test_integers_of_bitsandbytes_that_lie_as_a_gpu_wants_them(tmp_path):
    tiles = {"weight_format": torch.ones((), dtype=torch.uint8)}
    folder, _ = write_written(tmp_path, "bitsandbytes of 8 bits", **tiles)
    with pytest.raises(
        InputError, match=r"k_proj\.weight_format is 1, expected 0 \(by rows\), .*; quantize"
    ):
        open_float_model(folder)


@pytest.mark.parametrize("scale", [torch.ones(2), torch.ones(1).int()])
def test_a_scale_of_a_matrix_that_is_not_a_number(tmp_path, scale):
    folder, _ = write_written(tmp_path, "NVFP4", weight_global_scale=scale)
    with pytest.raises(
        InputError, match=r"k_proj\.weight_global_scale is \w+ \[\d\], expected one"
    ):
        open_float_model(folder)


@pytest.mark.parametrize("mode", [[], {}, None, 4])
def test_a_mode_of_mlx_that_is_not_a_name(tmp_path, mode):
    folder, _ = write_written(tmp_path, "mxfp4")
    change_config(folder, quantization={"mode": mode, "bits": 4, "group_size": 32})
    with pytest.raises(InputError, match=r"in mode .*expected .affine."):
        open_float_model(folder)


TURNED = {"u": {"apply": [{"location": "input"}]}}


@pytest.mark.parametrize(
    ("form", "settings", "message"),
    [
        (
            "NVFP4",
            {"transform_config": {"config_groups": TURNED}},
            "applied to activations at run time",
        ),
        ("NVFP4", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "stored as 'sparse-24-bit"),
        ("auto-round", {"rotation_config": {"hadamard": True}}, "weights are rotated"),
        (
            "auto-round",
            {"data_type": "nvfp4_v2"},
            "data_type 'nvfp4_v2', expected .*; quantize the",
        ),
        (
            "auto-round",
            {
                "extra_config": {
                    "a": {"data_type": "mx_int"},
                    "b": {"bits": 16, "data_type": "float"},
                }
            },
            "data_type 'mx_fp' and 'mx_int', expected one for all .*; quantize the",
        ),
        ("NVFP4", {"format": "nvfp4-e5m3-pack-quantized"}, "format is 'nvfp4-e5m3-pack-quantized'"),
        (
            "modelopt",
            {"quant_algo": "NVFP4_SVD"},
            "quant_algo 'NVFP4_SVD', expected W4A16_AWQ, W4A8",
        ),
    ],
)
def test_weights_that_are_not_the_models_as_they_are(tmp_path, form, settings, message):
    """Whose activations are turned, or that are sparse, or whose scales are of another kind."""
    folder, _ = write_written(tmp_path, form)
    stated = WRITTEN[form][1]["quantization_config"] | settings
    change_config(folder, quantization_config=stated)
    with pytest.raises(InputError, match=message):
        open_float_model(folder)


@pytest.mark.parametrize(
    "others",
    [
        {"algo_config": [{"name": "rotation"}]},
        {"layer_quant_config": {"*down_proj": {"weight": {"dtype": "int4"}}}},
    ],
)
def test_quark_beyond_float8_is_named(tmp_path, others):
    folder, _ = write_float8(tmp_path, quark(**others), "_scale", [1, 1000])
    with pytest.raises(InputError, match=r"its quant_method is 'quark'.*in floating point"):
        open_float_model(folder)
