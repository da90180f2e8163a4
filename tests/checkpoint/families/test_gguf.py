"""GGUF files of families whose tensors are several in one, in three dimensions or in another
order."""

import math
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from tests.support.formats.gguf_models import write_gguf_model
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError
from quatrain.quantize.methods import quantize_tensor
from quatrain.quantize.plan.plan_model import plan_model


def test_fused_rows_that_do_not_add_up(tmp_path):
    row = ROWS["phi4 mini"]
    model = model_of(row)
    layer = model.model.layers[1].self_attn
    layer.qkv_proj.weight = torch.nn.Parameter(layer.qkv_proj.weight[:-1], requires_grad=False)
    path = write_gguf_model(tmp_path / "m.gguf", model, row.gguf)
    with pytest.raises(InputError, match=r"blk\.1\.attn_qkv\.weight has 127 rows, expected 128"):
        open_float_model(path)


def q4_0_experts(seed, experts, rows, columns):
    """(blocks as the format lays them out, the integers and scales that they hold)"""
    rng = np.random.default_rng(seed)
    values = rng.integers(-8, 8, (experts, rows, columns)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, (experts, rows, columns // 32)).astype(np.float16)
    offset = (values + 8).astype(np.uint8).reshape(experts, rows, -1, 32)
    halves = offset[..., :16] | offset[..., 16:] << 4
    blocks = np.concatenate((scales[..., None].view(np.uint8), halves), axis=-1)
    return blocks.reshape(experts, rows, -1), values, scales


def test_q4_0_experts_are_kept(tmp_path):
    """Integers and scales of [experts, N, K] are the file's own, none rounded again."""
    shapes = {"gate": (96, 64), "up": (96, 64), "down": (64, 96)}
    made = {
        f"blk.{layer}.ffn_{part}_exps.weight": q4_0_experts(layer * 3 + index, 4, *shape)
        for layer in (1, 3)
        for index, (part, shape) in enumerate(shapes.items())
    }
    q4_0 = {name: blocks for name, (blocks, _, _) in made.items()}
    row = ROWS["llama4"]
    model = model_of(row, intermediate_size=96)
    path = write_gguf_model(tmp_path / "m.gguf", model, row.gguf, q4_0)
    opened = open_float_model(path)
    kept = {
        tensor.source: quantize_tensor(opened, tensor)
        for tensor in plan_model(opened, 32, "fp", "int8").tensors
        if ".experts." in tensor.source
    }
    for name, (_, values, scales) in made.items():
        layer, part = name.removesuffix("_exps.weight").removeprefix("blk.").split(".ffn_")
        ours = {"gate": "w1", "up": "w3", "down": "w2"}[part]
        integers, found = kept[f"layers.{layer}.feed_forward.experts.{ours}.weight"].tensors
        assert np.array_equal(integers.numpy(), values)
        assert np.array_equal(found.numpy(), scales.astype(np.float32))
    exact_groups = sum(tensor.error.exact_groups for tensor in kept.values())
    assert exact_groups == 2 * 4 * (96 * 2 * 2 + 64 * 3)


def changed(path, name, figures=None, tensors=None, q4_0=None, **fields):
    """The row's file with other `figures`, and `tensors` by their names in transformers: None is
    one that is left out."""
    row = ROWS[name]
    assert row.gguf is not None
    own = row.gguf

    def both(stored, config):
        stored = own.tensors(stored, config) | (tensors or {})
        return {name: tensor for name, tensor in stored.items() if tensor is not None}

    conversion = replace(
        own, figures=lambda config: own.figures(config) | (figures or {}), tensors=both
    )
    return write_gguf_model(path / "m.gguf", model_of(row, **fields), conversion, q4_0)


FREQUENCIES = "rope.freqs.weight"
NO_PART = r"is not 16 numbers, 1 for rotated planes and 1e\+30 for the others"
V_B_PROJ = "model.layers.0.self_attn.v_b_proj.weight"
KV_B_PROJ = "model.layers.0.self_attn.kv_b_proj.weight"
V_PROJ = "model.layers.0.self_attn.v_proj.weight"
A_LOG = "model.layers.1.linear_attn.A_log"


@pytest.mark.parametrize(
    ("name", "figures", "tensors", "message"),
    [
        ("gemma4", {}, {FREQUENCIES: None}, r"tensor rope_freqs\.weight is missing"),
        ("gemma4", {}, {FREQUENCIES: torch.full((16,), 8.0)}, NO_PART),
        ("gemma4", {}, {FREQUENCIES: torch.ones(8)}, NO_PART),
        ("gemma4", {"head_count_kv": [2, 1, 1, 2, 2, 1]}, {}, "one number for each kind of layers"),
        ("gemma4", {"feed_forward_length": [96, 96, 192, 96, 96, 96]}, {}, "twice it for the last"),
        ("gemma4", {"feed_forward_length": [float("inf")] * 6}, {}, "inf.*expected one number"),
        ("gemma3n", {"feed_forward_length": [float("nan")] * 5}, {}, "nan.*expected one number"),
        ("gemma4", {}, {V_PROJ: None}, r"blk\.0\.attn_v\.weight is missing"),
        ("gemma4 with keys that are the values", {}, {V_PROJ: None}, r"blk\.0\.attn_v"),
        ("apertus", {"xielu_alpha_p": [1.0]}, {}, r"xielu\.alpha_p is .*expected 3 finite numbers"),
        ("apertus", {"xielu_alpha_n": None}, {}, r"xielu\.alpha_n is None, expected 3 finite"),
        ("apertus", {"xielu_eps": [-0.1] * 3}, {}, r"eps is -0\.1, expected -1e-05 to 0"),
        (
            "youtu",
            {"leading_dense_block_count": 1},
            {},
            "expected 3: GGUF files with experts beside",
        ),
        ("youtu", {"expert_count": 4}, {}, "expert_count is 4, which this backbone does not"),
        ("youtu", {"key_length_mla": None}, {}, "key_length_mla' is None, expected a number"),
        ("youtu", {"key_length": 24}, {}, "key_length is 24, expected 40, as wide as what is"),
        ("youtu", {"rope_dimension_count": 24}, {}, "is 24, expected less than a head's 24"),
        ("youtu", {"rope_scaling_type": gguf.RopeScalingType.YARN}, {}, "GGUF files with latent"),
        ("youtu", {}, {V_B_PROJ: torch.zeros(4, 40, 16)}, r"attn_v_b\.weight is .*, expected"),
        ("minicpm 3", {}, {KV_B_PROJ: torch.zeros(96, 32)}, r"attn_kv_b\.weight is .*\[128, 32\]"),
        ("gemma4", {"sliding_window_pattern": 6}, {}, "expected 6 booleans"),
        ("gemma3", {"sliding_window_pattern": [True] * 3}, {}, "expected 4 booleans"),
        ("gemma2", {"sliding_window_pattern": 0}, {}, "is 0, expected one or more"),
        (
            "cohere2",
            {"sliding_window_pattern": 2},
            {},
            "pattern is 2, expected 4: every fourth layer",
        ),
        ("exaone4", {"sliding_window_pattern": [True] * 4}, {}, "expected 4: every fourth layer"),
        ("gemma2", {"rope_freq_base_swa": 500.0}, {}, "base_swa is 500.0, expected rope.freq_base"),
        ("gemma4", {"rope_scaling_factor": 4.0}, {}, "rope.scaling.factor is 4.0, which this"),
        ("gemma4", {"value_length_swa": 8}, {}, "value_length_swa is 8, expected 16"),
        ("gemma4", {"expert_count": 4}, {}, "expert_count is 4, which this backbone does not"),
        ("gemma3n", {"altup_active_idx": 1}, {}, "altup.active_idx is 1, expected 0"),
        ("gemma3n", {"altup_num_inputs": 4}, {}, r"altup_proj\.weight has shape \[2, 64, 64\]"),
        ("gemma3n", {"altup_num_inputs": 9}, {}, "altup.num_inputs is 9, expected 2 to 8"),
        ("gemma3n", {"activation_sparsity_scale": [0.1, 0.2, 0.3, 0.0, 0.0]}, {}, "then -inf"),
        ("qwen3.5", {"ssm_time_step_rank": 3}, {}, "time_step_rank is 3, expected a multiple of 2"),
        ("qwen3.5", {"ssm_inner_size": 97}, {}, "inner_size is 97, expected a multiple of 4"),
        ("qwen3.5", {"head_count": 2}, {}, r"attn_q\.weight has 256 rows, expected 128"),
        (
            "qwen3.5",
            {"nextn_predict_layers": 4},
            {},
            "nextn_predict_layers is 4, expected a number of layers, fewer than all",
        ),
        ("qwen3.5", {"ssm_state_size": 16}, {}, r"blk\.0\.attn_qkv\.weight has shape"),
        ("qwen3 next", {"ssm_group_count": 3}, {}, r"ssm_ba\.weight has 8 rows, expected 6"),
        ("qwen3.5 moe", {"expert_shared_feed_forward_length": 0}, {}, "is 0, expected one or more"),
        ("qwen3.5", {}, {A_LOG: torch.zeros(4)}, r"blk\.1\.ssm_a has decay rates of 0 or more"),
    ],
)
def test_values_that_no_file_of_the_family_has(tmp_path, name, figures, tensors, message):
    with pytest.raises(InputError, match=message):
        open_float_model(changed(tmp_path, name, figures, tensors))


@pytest.mark.parametrize("pattern", [3, [True, True, False, True]])
@pytest.mark.parametrize("name", ["gemma3", "olmo3"])
def test_windows_by_number_or_by_layer(tmp_path, name, pattern):
    path = changed(tmp_path, name, {"sliding_window_pattern": pattern})
    kinds = open_float_model(path).config.layer_types
    assert [kind == "sliding_attention" for kind in kinds] == [True, True, False, True]


def test_a_window_as_wide_as_the_context_leaves_the_rest_as_it_is(tmp_path):
    """What sees all tokens is rotated otherwise."""
    config = open_float_model(changed(tmp_path, "olmo3", {"sliding_window": 4096})).config
    assert config.local_rope_theta
    assert config.layer_types is not None
    config = open_float_model(changed(tmp_path, "exaone4", {"sliding_window": 4096})).config
    assert config.no_rope_layer_interval == 4


def test_what_multiplies_both_tables_of_a_ministral_3(tmp_path):
    """As llama.cpp has it, run on such files: what is beside YaRN's own."""
    path = changed(tmp_path, "ministral3", {"rope_scaling_attn_factors": 1.5})
    assert open_float_model(path).config.rope_scaling_attention_factor == pytest.approx(1.5)
    path = changed(tmp_path, "ministral3", {"rope_scaling_yarn_log_mul": 0.5})
    weighed = (0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)
    found = open_float_model(path).config.rope_scaling_attention_factor
    assert found == pytest.approx(weighed)


def test_layers_with_a_window_have_a_base_of_their_own(tmp_path):
    path = changed(tmp_path, "olmo3", {"rope_freq_base_swa": 500.0})
    assert open_float_model(path).config.local_rope_theta == 500.0


def test_what_the_first_files_of_gemma_2_leave_out(tmp_path):
    """Caps of 50 and 30, and windows of 4096, are llama.cpp's where a file says nothing."""
    left_out = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")
    config = open_float_model(changed(tmp_path, "gemma2", dict.fromkeys(left_out))).config
    assert (config.attn_logit_softcapping, config.output_soft_cap_temp) == (50.0, 30.0)
    assert config.sliding_window == 4096


@pytest.mark.parametrize("name", ["qwen3.5", "qwen3.5 moe", "qwen3 next", "glm4"])
def test_what_writes_several_tokens_at_once_is_left_out(tmp_path, name):
    """Layers behind the last: gguf knows them of GLM-4 as well."""
    layers = model_of(ROWS[name]).config.num_hidden_layers
    figures = {"block_count": layers + 1, "nextn_predict_layers": 1}
    further = f"blk.{layers}.nextn.eh_proj.weight"
    path = changed(tmp_path, name, figures, {further: torch.ones(8, 8)})
    model = open_float_model(path)
    assert model.notes == (f"Not used, as in llama.cpp: {further}.",)
    assert model.config.n_layers == layers


def test_a_count_of_further_layers_is_a_whole_number(tmp_path, monkeypatch):
    def add(writer, count):
        writer.add_float32("qwen35.nextn_predict_layers", count)

    monkeypatch.setattr(gguf.GGUFWriter, "add_nextn_predict_layers", add)
    figures = {"block_count": 5, "nextn_predict_layers": 1.0}
    assert open_float_model(changed(tmp_path, "qwen3.5", figures)).config.n_layers == 4
    with pytest.raises(
        InputError,
        match=r"nextn_predict_layers is 0\.5, expected a number of layers, fewer than all",
    ):
        open_float_model(changed(tmp_path, "qwen3.5", {"nextn_predict_layers": 0.5}))


def test_keys_of_layers_that_read_others_are_left_out(tmp_path):
    """llama.cpp's converter writes those of the released Gemma 3n."""
    names = [f"blk.{layer}.attn_{part}.weight" for layer in (3, 4) for part in ("k", "k_norm", "v")]
    path = changed(tmp_path, "gemma3n", {}, dict.fromkeys(names, torch.ones(8, 8)))
    assert open_float_model(path).notes == (f"Not used, as in llama.cpp: {', '.join(names)}.",)


def test_a_count_of_shared_layers_may_be_a_decimal_number(tmp_path, monkeypatch):
    """As gguf wrote it when Gemma 3n came."""

    def add(writer, count):
        writer.add_float32("gemma3n.attention.shared_kv_layers", count)

    monkeypatch.setattr(gguf.GGUFWriter, "add_shared_kv_layers", add)
    assert open_float_model(changed(tmp_path, "gemma3n")).config.num_kv_shared_layers == 2
    with pytest.raises(
        InputError, match=r"shared_kv_layers is 1\.5, expected a number of layers, fewer than all"
    ):
        open_float_model(changed(tmp_path, "gemma3n", {"shared_kv_layers": 1.5}))


def test_value_heads_in_another_order_are_refused(tmp_path, monkeypatch):
    """Ollama's converter says whether it put them as llama.cpp's does."""
    add = gguf.GGUFWriter.add_ssm_group_count

    def both(writer, count):
        add(writer, count)
        writer.add_bool("qwen35.ssm.v_head_reordered", False)

    monkeypatch.setattr(gguf.GGUFWriter, "add_ssm_group_count", both)
    with pytest.raises(InputError, match="v_head_reordered is False, expected true"):
        open_float_model(changed(tmp_path, "qwen3.5"))


@pytest.mark.parametrize("width", [32, 24])
def test_q4_0_in_another_order_is_kept_where_blocks_stay_whole(tmp_path, width):
    """Rows of Qwen 3.5's values, and columns that read them."""
    values = 4 * width
    made = {
        "blk.0.attn_gate.weight": q4_0_experts(0, 1, values, 64)[0][0],
        "blk.0.ssm_out.weight": q4_0_experts(1, 1, 64, values)[0][0],
        "blk.3.attn_q.weight": q4_0_experts(2, 1, 256, 64)[0][0],
    }
    model = open_float_model(changed(tmp_path, "qwen3.5", q4_0=made, linear_value_head_dim=width))
    kept = {name: blocks() for name, blocks in model.int4_blocks.items()}
    whole = {"layers.0.attention.out_proj.weight"} if width == 32 else set()
    assert kept.keys() == whole | {
        "layers.0.attention.in_proj_z.weight",
        "layers.3.attention.wq.weight",
        "layers.3.attention.og.weight",
    }
    for name, (integers, scales) in kept.items():
        product = integers.unflatten(-1, (-1, 32)) * scales[..., None]
        assert torch.equal(product.flatten(-2), model.tensors[name]), name
