"""The knobs of ExecuTorch's ModelArgs against ExecuTorch's own eager model."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models.knobs import ALL, KNOBS, LONGROPE, TINY, Peer, write_meta_folder
from tests.support.models.peers import TOLERANCE, backbone_of, prefill_then_decode, relative_error

from quatrain.backbone.params.params import config_from_params
from quatrain.backbone.params.written import written_params
from quatrain.errors import InputError
from quatrain.quantize.pipeline import quantize_model
from quatrain.verify.eager import load_eager

LENGTH = 12
DELTA = {
    "layer_types": ["linear_attention"] * 4, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 16,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 32, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "head_dim": 12,
}  # fmt: skip
SHARED = {"num_kv_shared_layers": 2, "sliding_window": 8, "local_rope_theta": 100.0}


def _inputs(fields: dict) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if fields.get("apply_embedding", True):
        rows = len(fields.get("input_prune_map") or range(TINY["vocab_size"]))
        return torch.randint(rows, (1, LENGTH), generator=generator)
    return torch.randn(1, LENGTH, TINY["dim"], generator=generator)


def _assert_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    finite = torch.isfinite(theirs)
    assert torch.equal(torch.isfinite(ours), finite)
    assert relative_error(ours[finite], theirs[finite]) < TOLERANCE


@pytest.mark.parametrize("name", [*KNOBS, "all together"])
def test_each_knob_equals_executorch(name, tmp_path):
    fields = KNOBS.get(name, ALL)
    peer, inputs = Peer(fields), _inputs(fields)
    theirs = peer.steps(inputs)
    backbone = backbone_of(write_meta_folder(tmp_path, fields, peer.state))
    hidden = backbone.output is None
    for prefill in (1, 5, LENGTH):
        ours = prefill_then_decode(backbone, inputs, prefill)
        _assert_equal(ours, theirs if hidden else theirs[:, prefill - 1 :])


def test_pruned_tables_load_like_whole_ones(tmp_path):
    fields = KNOBS["input_prune_map"] | KNOBS["output_prune_map"]
    state, inputs = Peer(fields).state, _inputs(fields)
    whole = backbone_of(write_meta_folder(tmp_path / "whole", fields, state))
    rows = torch.tensor(list(fields["input_prune_map"].values()))
    for name in ("tok_embeddings.weight", "output.weight"):
        state[name] = state[name][rows]
    pruned = backbone_of(write_meta_folder(tmp_path / "pruned", fields, state))
    expected = prefill_then_decode(whole, inputs, 5)
    _assert_equal(prefill_then_decode(pruned, inputs, 5), expected)
    left_out = [t for t in range(TINY["vocab_size"]) if t not in fields["input_prune_map"].values()]
    assert torch.isneginf(expected[..., left_out]).all()


def test_an_output_bias_is_cut_with_the_output(tmp_path):
    """It is added to the logits of the tokens that stay, and to no hidden state."""
    fields, kept = (
        KNOBS["output_prune_map"],
        [*KNOBS["output_prune_map"]["output_prune_map"].values()],
    )
    state, inputs = Peer(fields).state, _inputs(fields)
    without = backbone_of(write_meta_folder(tmp_path / "without", fields, state))
    expected = prefill_then_decode(without, inputs, 5)
    state["output_bias.bias"] = torch.arange(float(TINY["vocab_size"]))
    folder = write_meta_folder(tmp_path / "with", fields | {"output_bias": True}, state)
    found = prefill_then_decode(backbone_of(folder), inputs, 5)
    _assert_equal(found[..., kept] - torch.tensor(kept), expected[..., kept])
    hidden = [backbone_of(each, hidden_output=True) for each in (folder, tmp_path / "without")]
    _assert_equal(*(prefill_then_decode(backbone, inputs, 5) for backbone in hidden))


PRUNED = [row * 3 + 1 for row in range(32)]
OUTPUTS = {
    "in the same order": PRUNED,
    "in another order": PRUNED[::-1],
    "some of them": PRUNED[5:20],
}


@pytest.mark.parametrize("kept", OUTPUTS)
def test_a_tied_table_that_is_cut_is_the_output_by_token(kept, tmp_path):
    """Rows of the embedding are rows of the output for the tokens they stand for."""
    fields = {
        "input_prune_map": dict(enumerate(PRUNED)),
        "output_prune_map": dict(enumerate(OUTPUTS[kept])),
    }
    state, inputs = Peer({}).state, _inputs(fields)
    del state["output.weight"]
    expected = _opened_both_ways(tmp_path / "whole", fields, state, inputs)
    state["tok_embeddings.weight"] = state["tok_embeddings.weight"][torch.tensor(PRUNED)]
    found = _opened_both_ways(tmp_path / "cut", fields, state, inputs)
    for ours, theirs in zip(found, expected, strict=True):
        _assert_equal(ours, theirs)


def _opened_both_ways(folder, fields, state, inputs):
    """Logits of the floating-point model; and of its int4 checkpoint, tied as well."""
    write_meta_folder(folder / "model", fields, state)
    quantize_model(folder / "model", folder / "int4", embedding="fp", method="rtn")
    tensors = load_file(folder / "int4" / "model.safetensors")
    tied = {name: part for name, part in tensors.items() if not name.startswith("output")}
    save_file(tied, folder / "int4" / "model.safetensors")
    backbones = [backbone_of(folder / "model"), load_eager(folder / "int4", "weight-only")]
    return [prefill_then_decode(backbone, inputs, 5) for backbone in backbones]


@pytest.mark.parametrize("output", [None, dict(enumerate([*PRUNED, 0]))])
def test_a_tied_table_that_was_cut_too_far(output, tmp_path):
    fields = {"input_prune_map": dict(enumerate(PRUNED)), "output_prune_map": output}
    state = Peer({}).state
    del state["output.weight"]
    state["tok_embeddings.weight"] = state["tok_embeddings.weight"][torch.tensor(PRUNED)]
    with pytest.raises(InputError, match="has no row for token 0 of the output"):
        backbone_of(write_meta_folder(tmp_path, fields, state))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"scale_query_by": 2.0}, "needs use_qk_norm"),
        ({"num_kv_shared_layers": 4}, "leaves no layer with keys"),
        ({"output_prune_map": {"0": 96}}, "names token 96"),
        ({"output_prune_map": {"1": 3}}, "rows 0, 1, 2"),
        ({"output_prune_map": {"0": 3, "1": 3}}, "the same token"),
        ({"input_prune_map": [3, 4]}, "expected an object"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries"),
        ({"layer_types": ["other"] * 4}, "expected one of 'full_attention'"),
        ({"layer_types": ["conv"] * 4, "conv_L_cache": 1}, "reads no other token"),
        ({"layer_types": ["conv"] * 4, "num_kv_shared_layers": 1}, "layers that all attend"),
        ({"layer_types": ["linear_attention"] * 4}, "which needs linear_num_key_heads"),
        (DELTA | {"linear_num_value_heads": 3}, "3 is not a multiple of linear_num_key_heads 2"),
        (DELTA | {"linear_conv_kernel_dim": 1}, "linear_conv_kernel_dim 1, expected 2 or more"),
        (DELTA | {"num_kv_shared_layers": 1}, "layers that all attend, and layer_types has others"),
        ({"v_head_dim": 8}, "v_head_dim is for latent attention, which needs kv_lora_rank"),
        ({"kv_lora_rank": 8}, "kv_lora_rank is 8, which needs qk_nope_head_dim"),
        (LATENT | {"head_dim": 16}, r"head_dim is 16, expected qk_nope_head_dim \+ qk_rope"),
        (LATENT | {"qk_rope_head_dim": 3, "head_dim": 11}, "qk_rope_head_dim 3 is odd"),
        (LATENT | {"layer_types": ["full_attention"] * 4}, "layer_types is for attention to keys"),
        (LATENT | {"use_qk_norm": True}, "use_qk_norm is for attention to keys and values"),
        ({"per_layer_dim": 8, "apply_embedding": False}, "needs token ids"),
        ({"global_rotary_planes": 0.5}, "global_rotary_planes below 1 .* needs use_hf_rope"),
        ({"global_head_dim": 15}, "is odd"),
        (
            {
                **SHARED,
                "kv_shared_by_type": True,
                "layer_types": ["full_attention"] * 3 + ["sliding_attention"],
            },
            "leaves no layer of sliding_attention with keys",
        ),
        ({"act_fn": "tanh"}, "expected one of 'silu'"),
        ({"learned_positions": 8}, "max_seq_len is 64, expected at most learned_positions 8"),
        ({"pre_norm": False, "post_attention_norm": True}, "post_ffn_norm must be true"),
        ({"parallel_residual": True, "post_ffn_norm": True}, "without norms or gates"),
        ({"parallel_residual": True, "use_residual_gate": True}, "without norms or gates"),
        ({"parallel_ffn_norm": True}, "parallel_ffn_norm is for parallel_residual"),
        ({"no_feed_forward_layers": [4]}, "names layer 4, and n_layers is 4"),
        (
            {"no_feed_forward_layers": [0], "use_residual_gate": True},
            "norms before their parts alone",
        ),
        ({"no_feed_forward_layers": [0], "parallel_residual": True}, "follow one another"),
        ({"norm_type": "layer", "post_ffn_norm": True}, "norms before attention and feed-forward"),
        ({"norm_bias": True}, "norm_bias is for norm_type 'layer'"),
        ({"qk_norm_whole": True, "qk_norm_before_rope": False}, "needs qk_norm_before_rope"),
        ({"feed_forward_gate": False, "num_experts": 2}, "experts have one"),
        ({"act_fn": "xielu", "num_experts": 2}, "not for experts or per_layer_dim"),
        ({"partial_rotary_factor": 0.1}, "rotates 1 channels"),
        ({"use_hf_rope": True, "partial_rotary_factor": 1.5}, "expected at most 1"),
        ({"use_ffn_learnable_scales": True, "post_ffn_norm": True}, "two norms in one place"),
        ({"use_residual_gate": "yes"}, "expected a bool"),
        ({"num_kv_shared_layers": -1}, "positive finite"),
        ({"yarn": {"factor": 16}}, r"yarn is not a field .*Mistral's own .* its config\.json"),
        ({"moe": True}, r"moe is not a field that this backbone implements; remove it if"),
        ({"model_type": "llama"}, r"model_type is not a field .*remove it"),
        ({"logit_scaling": 2.0}, r"logit_scaling is not a field .*\(it has logits_scaling"),
        ({"input_prune_map": {str(row): 95 - row for row in range(96)}}, "in another order"),
        (
            {**SHARED, "layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
            "lets layer 3, of sliding_attention, read the keys of layer 1, of full_attention",
        ),
        (
            {**SHARED, "no_rope_layer_interval": 4, "attention_chunk_size": 8},
            "which attention_chunk_size limits for one kind alone",
        ),
        ({**LONGROPE}, "rope_scaling_attention_factor is missing; state it"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        config_from_params({**TINY, **fields}, "params.json")


@pytest.mark.parametrize("fields", [ALL, {**LONGROPE, "rope_scaling_attention_factor": 1.0}])
def test_params_survive_a_round_trip(fields):
    config = config_from_params({**TINY, **fields}, "params.json")
    assert config_from_params(written_params(config), "params.json") == config
