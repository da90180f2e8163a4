"""Meta's params.json: what it means by what it leaves out, and what is refused in it."""

import json

import pytest
import torch
from tests.support.formats import meta_releases as releases
from tests.support.formats.meta_folders import write_meta_llama4
from tests.support.models import tiny_models as tiny
from tests.support.models.families import LLAMA4
from tests.support.models.peers import random_model

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.json_files import read_object
from quatrain.quantize.pipeline import convert_model, quantize_model

SCALED = {"use_scaled_rope": True, "rope_theta": 500000.0}
WRONG = (
    None, "x", [], [1], {}, True, -1, 0, 1e300, 10**400, float("nan"), float("inf"), [[]],
    {"0": [1]},
)  # fmt: skip


def change(folder, **fields):
    """Set `fields` in params.json; an ellipsis removes one."""
    params = json.loads((folder / "params.json").read_text()) | fields
    params = {name: value for name, value in params.items() if value is not ...}
    (folder / "params.json").write_text(json.dumps(params))
    return folder


def write_wide(folder, dim):
    """A float model as wide as a Llama 3.2, and otherwise as small as it can be."""
    shapes = {"wq": (32, dim), "wk": (32, dim), "wv": (32, dim), "wo": (dim, 32)}
    tensors = {f"layers.0.attention.{name}.weight": shape for name, shape in shapes.items()}
    shapes = {"w1": (32, dim), "w2": (dim, 32), "w3": (32, dim)}
    tensors |= {f"layers.0.feed_forward.{name}.weight": shape for name, shape in shapes.items()}
    tensors |= {f"layers.0.{name}.weight": (dim,) for name in ("attention_norm", "ffn_norm")}
    tensors |= {"norm.weight": (dim,), "tok_embeddings.weight": (8, dim)}
    params = {"dim": dim, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 32,
              "hidden_dim": 32, "vocab_size": 8, **SCALED}  # fmt: skip
    tiny.write_meta(folder, {name: torch.ones(shape) for name, shape in tensors.items()}, **params)
    return folder


@pytest.mark.parametrize(("dim", "factor"), [(2048, 32), (3072, 32), (64, 8), (4096, 8)])
def test_scaled_rope_without_a_factor_is_that_of_the_width(tmp_path, dim, factor):
    """Llama 3.2's 1B and 3B are scaled by 32, Llama 3.1 by 8; neither's params.json says so."""
    folder = write_wide(tmp_path / "meta", dim)
    assert open_float_model(folder).config.rope_scale_factor == factor
    # Written out in what is made of it, so that it says the same to everyone.
    quantize_model(folder, tmp_path / "int4", method="rtn")
    assert read_object(tmp_path / "int4" / "params.json")["rope_scale_factor"] == factor
    # Meta's int4 releases leave it out, too.
    change(tmp_path / "int4", rope_scale_factor=...)
    convert_model(tmp_path / "int4", tmp_path / "again")
    for made in ("int4", "again"):
        assert open_checkpoint(tmp_path / made).config.rope_scale_factor == factor
    assert read_object(tmp_path / "again" / "params.json")["rope_scale_factor"] == factor


def test_a_stated_factor_is_kept(tmp_path):
    folder = change(write_wide(tmp_path / "meta", 2048), rope_scale_factor=8)
    assert open_float_model(folder).config.rope_scale_factor == 8
    quantize_model(folder, tmp_path / "int4", method="rtn")
    assert open_checkpoint(tmp_path / "int4").config.rope_scale_factor == 8


def test_without_scaled_rope_nothing_is_scaled(tmp_path):
    config = open_float_model(change(write_wide(tmp_path, 2048), use_scaled_rope=False)).config
    assert not config.use_scaled_rope


@pytest.mark.parametrize("absent", [..., None])
def test_llama4_figures_that_scout_leaves_out(tmp_path, absent):
    folder = write_llama4(tmp_path / "meta")
    names = ("rope_scaling_factor", "rope_high_freq_factor", "rope_theta", "floor_scale")
    config = open_float_model(
        change(folder, use_scaled_rope=True, **dict.fromkeys(names, absent))
    ).config
    assert (config.rope_scale_factor, config.high_freq_factor) == (16.0, 1.0)
    assert (config.rope_theta, config.floor_scale) == (500000.0, 8192)
    stated = {"rope_scaling_factor": 4.0, "rope_high_freq_factor": 2.0, "rope_theta": 1e4}
    config = open_float_model(change(folder, **stated)).config
    assert (config.rope_scale_factor, config.high_freq_factor) == (4.0, 2.0)
    assert config.rope_theta == 1e4


def write_llama4(folder):
    return write_meta_llama4(folder, random_model("Llama4", **LLAMA4))


def test_types_of_one_layer_more_than_there_are_as_in_executorchs_params_of_lfm2(tmp_path):
    types = ["sliding_attention", "full_attention", "full_attention"]
    folder = tiny.write_meta(tmp_path, sliding_window=8, layer_types=types)
    config = open_float_model(folder).config
    assert config.n_layers == 2 and list(config.layer_types or ()) == types[:2]
    for wrong in (types[:1], [*types, "full_attention"]):
        with pytest.raises(
            InputError, match=f"layer_types has {len(wrong)} entries, n_layers is 2"
        ):
            open_float_model(change(folder, layer_types=wrong))


@pytest.mark.parametrize("before", [True, False, ...])
def test_qk_norm_is_after_the_rotation_unless_stated(tmp_path, before):
    """As in ExecuTorch's ModelArgs; what Quatrain writes states it."""
    tensors = tiny.float_tensors(use_qk_norm=True)
    folder = tiny.write_meta(tmp_path / "meta", tensors, use_qk_norm=True)
    folder, expected = change(folder, qk_norm_before_rope=before), before is True
    assert open_float_model(folder).config.qk_norm_before_rope == expected
    quantize_model(folder, tmp_path / "int4", method="rtn")
    assert read_object(tmp_path / "int4" / "params.json")["qk_norm_before_rope"] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (5, r"quantization_args is 5, expected an object or null"),
        ([1], r"quantization_args is \[1\], expected an object or null"),
        ({"group_size": 32, "spinquant": 1}, "spinquant 1, expected true, false or null"),
        ({"group_size": 32, "spinquant": "yes"}, "spinquant 'yes', expected true, false or null"),
    ],
)
def test_quantization_args_that_cannot_be_understood(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        open_checkpoint(tiny.write_checkpoint(tmp_path / "a", quantization_args=arguments))
    with pytest.raises(InputError, match=message):
        open_float_model(tiny.write_meta(tmp_path / "b", quantization_args=arguments))


def test_json_nested_too_deeply(tmp_path):
    folder = tiny.write_meta(tmp_path)
    (folder / "params.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="cannot be read as JSON"):
        open_float_model(folder)


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "params.json").write_text('{"dim": 64}', encoding="utf-8-sig")
    assert read_object(tmp_path / "params.json") == {"dim": 64}


LAYOUT = {
    "plain": (lambda folder: tiny.write_meta(folder, bos_idx=1, eos_idx=[2, 0]), open_float_model),
    "Llama 3.2": (lambda folder: change(write_wide(folder, 64), hidden_dim=...), open_float_model),
    "Llama 4": (write_llama4, open_float_model),
    "int4": (tiny.write_checkpoint, open_checkpoint),
    "SpinQuant": (
        lambda folder: releases.write_release(
            folder, releases.release_tensors(), **releases.SPINQUANT
        ),
        open_checkpoint,
    ),
}
ALSO = (
    "hidden_dim", "ffn_dim_multiplier", "multiple_of", "max_context_len", "bos_idx", "eos_idx",
    "quantization_args", "lora_args", "moe_args", "nope_layer_interval", "layer_types",
    "input_prune_map", "output_prune_map", "rope_scaling_short_factor", "rope_scale_factor",
    "rope_scaling_long_factor", "max_position_embeddings", "original_max_position_embeddings",
    "num_kv_shared_layers", "sliding_window", "partial_rotary_factor", "use_qk_norm", "act_fn",
    "rope_freq_base", "norm_type", "pre_norm", "parallel_residual", "feed_forward_gate",
)  # fmt: skip
OF_MOE = ("num_experts", "top_k", "interleave_moe_layer_step", "capacity_factor", "other")


@pytest.mark.parametrize("kind", LAYOUT)
def test_any_value_of_any_field_is_taken_or_refused(tmp_path, kind):
    """Whatever stands in params.json: a model, or one `InputError`."""
    write, opened = LAYOUT[kind]
    folder = write(tmp_path / "model")
    params = json.loads((folder / "params.json").read_text())
    # Read by the same code for all: each of WRONG in "plain", and else every second.
    some = (None, *WRONG[1 + [*LAYOUT].index(kind) % 2 :: 2])
    few = {} if kind == "plain" else dict.fromkeys(ALSO, some)
    names = dict.fromkeys([*params, *ALSO])
    changed = [{name: value} for name in names for value in few.get(name, WRONG)]
    moe = params.get("moe_args", {})
    changed += [{"moe_args": moe | {name: value}} for name in OF_MOE for value in WRONG if moe]
    taken = 0
    for fields in changed:
        (folder / "params.json").unlink()  # to empty a file takes longer than to write a new one
        (folder / "params.json").write_text(json.dumps(params | fields))
        try:
            opened(folder)
            taken += 1
        except InputError as error:
            assert str(folder) in str(error)
        except Exception as error:
            error.add_note(f"with {str(fields)[:80]}")
            raise
    assert 0 < taken < len(changed) / 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ffn_dim_multiplier": "x"}, "'ffn_dim_multiplier' is 'x', expected a float"),
        (
            {"ffn_dim_multiplier": 1e308},
            "ffn_dim_multiplier is 1e.308, which is too large for any model",
        ),
        ({"multiple_of": [1]}, "'multiple_of' is .1., expected a int"),
        ({"norm_eps": 10**400}, "'norm_eps' is 1000.*, expected a positive finite number"),
        ({"bos_idx": "x"}, "'bos_idx' is 'x', expected a int"),
        ({"eos_idx": [[1]]}, "'eos_idx' is .1., expected a int"),
        ({"max_context_len": "x"}, "'max_context_len' is 'x', expected a int"),
        ({"moe_args": [1]}, "moe_args is .1., expected an object or null"),
        ({"rope_theta": 1e4, "rope_freq_base": 1e5}, "two names of one field"),
    ],
)
def test_values_of_the_wrong_kind_are_named(tmp_path, fields, message):
    folder = change(tiny.write_meta(tmp_path), hidden_dim=..., **fields)
    with pytest.raises(InputError, match=message):
        open_float_model(folder)
