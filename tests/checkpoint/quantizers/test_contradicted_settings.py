"""Settings of a quantizer that the folder's tensors contradict are named; none count in silence."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.formats.mlx_folders import write_mlx_model
from tests.support.models import tiny_models as tiny
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.quantize.requantize import Requantization

Q = "model.layers.0.self_attn.q_proj"


def group(**weights):
    weights = {"num_bits": 4, "type": "int", "symmetric": True} | weights
    return {"config_groups": {"g": {"targets": ["Linear"], "weights": weights}}}


def auto_round(**more):
    settings = {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}
    return settings | {"bits": 4, "sym": True} | more


def as_marlin(tensors):
    names = {".qweight": ".B", ".scales": ".s", ".qzeros": "", ".g_idx": ""}
    for old in list(tensors):
        ending = old[old.rindex(".") :]
        tensor = tensors.pop(old) if ending in names else None
        if tensor is not None and names[ending]:
            tensors[old.replace(ending, names[ending])] = tensor


def without_order(tensors):
    for name in [name for name in tensors if name.endswith(".g_idx")]:
        del tensors[name]


def rewritten(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


CONTRADICTED = [
    ("gptq", {"checkpoint_format": "gptq_v2"}, None, "one below the middle.*format 'gptq'"),
    ("gptq_v2", {"checkpoint_format": None, "sym": True}, None, "one above.*format 'gptq_v2'"),
    ("gptq", auto_round(packing_format="auto_round"), None, "one below.*packing_format"),
    ("gptq", auto_round(act_bits=8, act_data_type="fp8"), None, "act_data_type 'fp8'"),
    (
        "gptq",
        {"is_marlin_format": True},
        as_marlin,
        r"none of the tensors.*proj\.B.*in another format",
    ),
    ("gptq", {}, lambda tensors: tensors.pop(f"{Q}.qzeros"), "qzeros is missing.*download"),
    ("gptq", {"rotation": "hadamard"}, None, "rotated .rotation hadamard.*at run time"),
    ("awq", {"rotation": "random"}, None, "rotated .rotation random"),
    ("gptq", auto_round(rotation_config={"algorithm": "hadamard"}), None, "rotated .rotation_conf"),
    ("gptq", {"desc_act": True}, without_order, "g_idx is missing.*desc_act: true"),
    ("gptq", {"group_size": 64}, without_order, "groups of 32, .* have group_size 64"),
    ("awq", {"group_size": 64}, None, "groups of 32, .* have group_size 64"),
    ("compressed-tensors", group(group_size=64), None, "groups of 32, .* have group_size 64"),
    ("gptq", {"quant_method": None}, None, "has no quant_method; add"),
    ("compressed-tensors", group(symmetric=False), None, "weight_zero_point.*symmetric: false"),
    ("compressed-tensors", group(actorder="group"), None, "weight_g_idx.*actorder: group"),
    ("compressed-tensors", group(actorder=True), None, "weight_g_idx.*actorder: True"),
    ("compressed-tensors", group(num_bits=8), None, r"weight_shape.*\[64, 48\] numbers of 8 bits"),
]


@pytest.mark.parametrize(("method", "settings", "change", "message"), CONTRADICTED)
def test_settings_that_the_tensors_contradict(tmp_path, method, settings, change, message):
    folder = folders.write_quantized(tmp_path, method, settings=settings)
    if change is not None:
        rewritten(folder, change)
    for round_again in (None, Requantization()):
        with pytest.raises(InputError, match=message):
            open_checkpoint(folder, round_again=round_again).check_values()
            open_checkpoint(folder, round_again=round_again).tensors[
                "layers.0.feed_forward.w2.weight"
            ]
    # That is said where `quantize` is given it, too; what values contradict, where they are read.
    in_values = message.startswith(("one below", "one above"))
    with pytest.raises(InputError, match="already quantized" if in_values else message):
        open_float_model(folder)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("gptq", {"checkpoint_format": None}),
        ("awq", {"bits": None, "w_bit": 4}),
        ("gptq", auto_round(act_bits=8, act_data_type="int_sym")),
    ],
)
def test_a_null_says_nothing(tmp_path, method, settings):
    checkpoint = open_checkpoint(folders.write_quantized(tmp_path, method, settings=settings))
    checkpoint.check_values()
    for name, tensor in folders.expected_tensors().items():
        assert torch.equal(checkpoint.tensors[name], tensor), name


def test_groups_of_compressed_tensors_that_were_never_put_in_order(tmp_path):
    """compressed-tensors begins with -1, for which it takes neighbours."""
    folder = folders.write_quantized(tmp_path, "compressed-tensors")
    never = {f"{Q}.weight_g_idx": torch.full((64,), -1, dtype=torch.int32)}
    checkpoint = open_checkpoint(rewritten(folder, lambda tensors: tensors.update(never)))
    checkpoint.check_values()
    name = "layers.0.attention.wq.weight"
    assert torch.equal(checkpoint.tensors[name], folders.expected_tensors()[name])


@pytest.mark.parametrize("part", ["weight", "switch_mlp.up_proj.biases"])
def test_matrices_of_mlx_without_numbers(tmp_path, part):
    """The whole, or a part of all experts' that is a number."""
    folder = tmp_path / "mlx"
    write_mlx_model(folder, model_of(ROWS["qwen3 moe"]), quantized=True)
    tensors = load_file(folder / "model.safetensors")
    name = "lm_head.weight" if part == "weight" else f"model.layers.0.mlp.{part}"
    tensors[name] = tensors[name][:, :0] if part == "weight" else tensors[name].flatten()[0]
    save_file({name: t.clone() for name, t in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head.weight is uint32 \[96, 0\]|up_proj.biases"):
        open_checkpoint(folder, round_again=Requantization())


def test_integers_that_nothing_tells_of(tmp_path):
    """`quantize` refuses them too."""
    folder = tiny.write_hugging_face(tmp_path)
    others = {f"{Q}.weight": torch.ones(2048, 1, dtype=torch.uint8), f"{Q}.absmax": torch.ones(64)}
    rewritten(folder, lambda tensors: tensors.update(others))
    with pytest.raises(InputError, match=r"q_proj.weight is uint8, and config.json does not"):
        open_checkpoint(folder)


def test_two_of_gptqs_formats(tmp_path):
    folder = folders.write_quantized(tmp_path, "gptq_v2", settings={"checkpoint_format": "gptq_v2"})
    beside = folder / "quantize_config.json"
    beside.write_text('{"bits": 4, "checkpoint_format": "gptq_v2"}')
    open_checkpoint(folder)
    beside.write_text('{"bits": 4}')
    with pytest.raises(InputError, match=r"quantize_config.json: its GPTQ format is 'gptq', but"):
        open_checkpoint(folder)


@pytest.mark.parametrize("settings", [folders.SETTINGS["gptq"], {"load_in_4bit": True}])
def test_settings_left_over_in_a_model_in_floating_point(tmp_path, settings):
    """Fine-tuning keeps those of a base that was loaded in 4 bits."""
    folder = tiny.write_hugging_face(tmp_path, quantization_config=settings)
    for opened in (open_checkpoint, open_float_model):
        with pytest.raises(InputError, match=r"all its tensors are in floating.*remove quant"):
            opened(folder)
