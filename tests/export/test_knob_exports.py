"""Programs of backbones that are no plain Llama compute what those do, on both backends."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.comparisons.verified import (
    assert_verified,
    exchange_experts,
    verified,
    wrong_beside,
)
from tests.support.devices import DEVICES_OF
from tests.support.models.families import (
    AFMOE,
    GEMMA4_LARGER,
    GRANITE_MOE,
    LFM2_MOE,
    LLAMA4,
    QWEN2_MOE,
    QWEN3_MOE,
)
from tests.support.models.knobs import ALL, LONGROPE, TINY, Peer, write_meta_folder
from tests.support.models.peers import int4_checkpoint, random_model
from tests.support.thorough import thorough

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.model import Backbone
from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.layout import float_shapes, table_shapes
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.notes import notes_on
from quatrain.export.xnnpack.positive_scales import RoundedAgain
from quatrain.program import open_program
from quatrain.program.inspect.linears import find_linears
from quatrain.program.inspect.sizes import cache_values
from quatrain.program.vulkan.def_use import DefUse
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.load import load_runner
from quatrain.verify.checks.layerwise import TOLERANCE, compare_layerwise
from quatrain.verify.checks.packed_constants import check_packed
from quatrain.verify.eager import load_eager

VULKAN, XNNPACK = ExportOptions(), ExportOptions(backend="xnnpack")
VULKAN_FLOAT = ExportOptions(scheme="weight-only")
# Two layers that have, between them, all that Llama 4 has; 8 tokens to a chunk where that counts.
SMALL_LLAMA4 = {
    **LLAMA4, "num_hidden_layers": 2, "no_rope_layer_interval": 2, "num_experts_per_tok": 2,
    "num_local_experts": 3, "floor_scale": 4,
}  # fmt: skip
# One layer of each kind; all linears of one shape: of XNNPACK each shape is lowered.
SMALL_LFM2_MOE = {
    **LFM2_MOE, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"],
    "num_experts": 3, "num_key_value_heads": 4, "intermediate_size": 64,
    "routed_scaling_factor": 2.5,
}  # fmt: skip
WINDOWED = {"sliding_window": 8, "head_dim": 16, "query_pre_attn_scalar": 24,
            "num_hidden_layers": 2, "intermediate_size": 64}  # fmt: skip
UNLIKE = ("no_rope_layer_interval", "num_kv_shared_layers")  # knobs that tell layers apart
LENGTH, PREFILL = 14, 6
CALLS = ((0, PREFILL), *((at, at + 1) for at in range(PREFILL, LENGTH)))


def _assert_program_equals_eager(checkpoint, options, path, vocab_size=96):
    report = export_checkpoint(checkpoint, path, options)
    eager = load_eager(checkpoint, options.scheme, ARITHMETIC_OF[options.backend])

    def text(generator):
        return torch.randint(vocab_size, (1, LENGTH), generator=generator)

    for device in DEVICES_OF[options.backend]:
        assert_equal_but_for_rounding(load_runner(path, device), eager, text, CALLS)
    return report


def test_knobs_that_all_layers_share_are_replicated(tmp_path):
    """Layers that are alike are copies of one another, constants and all."""
    alike = {name: value for name, value in ALL.items() if name not in UNLIKE}
    write_meta_folder(tmp_path / "model", alike | {"residual_multiplier": 0.5}, Peer(alike).state)
    quantize_model(tmp_path / "model", tmp_path / "int4", embedding="int4", method="rtn")
    rows = len(ALL["input_prune_map"])
    report = _assert_program_equals_eager(tmp_path / "int4", VULKAN, tmp_path / "m.pte", rows)
    assert_as_planned(report, tmp_path / "int4")
    assert not any("lowered separately" in note for note in report.notes)


# Knobs of families that are unlike Llama where every layer is, with four layers to copy.
UNLIKE_LLAMA = {
    "norms after alone, of all heads together, no gate, part of each head rotated": {
        "pre_norm": False, "post_attention_norm": True, "post_ffn_norm": True,
        "use_qk_norm": True, "qk_norm_before_rope": True, "qk_norm_whole": True,
        "feed_forward_gate": False, "act_fn": "relu2", "partial_rotary_factor": 0.5,
    },
    "learned positions, layer norms, no gate": {
        "learned_positions": 80, "no_rope_layer_interval": 1, "norm_type": "layer",
        "norm_bias": True, "feed_forward_gate": False, "act_fn": "relu", "hidden_dim": 256,
    },
    "sinks of heads": {"use_sink_scores": True},
    "sinks of heads beside a window, which alone rotates": {
        "use_sink_scores": True, "sliding_window": 4, "global_rope": False,
    },
    "one layer norm, in parallel, learned slopes": {
        "norm_type": "layer", "norm_bias": True, "parallel_residual": True, "output_bias": True,
        # As wide as in real models: what layers hand on lies in one place only so.
        "feed_forward_gate": False, "act_fn": "xielu", "hidden_dim": 256,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def unlike_llama(tmp_path_factory):
    """Makes the int4 checkpoint of one of them, once."""

    @cache
    def make(name, layers):
        folder = tmp_path_factory.mktemp("unlike")
        # Few shapes of linears, of which XNNPACK lowers one each.
        fields = {"hidden_dim": 64, **UNLIKE_LLAMA[name], "n_layers": layers}
        config = config_from_params({**TINY, **fields}, "params.json")
        shapes = float_shapes(config) | {
            f"{table}.weight": shapes[0] for table, shapes in table_shapes(config).items()
        }
        generator = torch.Generator().manual_seed(0)
        state = {
            name: torch.randn(shape, generator=generator) * shape[-1] ** -0.5
            if len(shape) > 1
            else 1.0 + 0.3 * torch.randn(shape, generator=generator)
            for name, shape in shapes.items()
        }
        del state["output.weight"]  # tied: one table in the program, however it is lowered
        write_meta_folder(folder / "model", fields, state)
        quantize_model(folder / "model", folder / "int4", embedding="int4", method="rtn")
        return folder / "int4"

    return make


@pytest.mark.parametrize("name", UNLIKE_LLAMA)
def test_layers_unlike_llamas_on_vulkan(name, unlike_llama, tmp_path):
    checkpoint = unlike_llama(name, 4)
    report = _assert_program_equals_eager(checkpoint, VULKAN, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)
    alone = any("lowered separately" in note for note in report.notes)
    assert not alone or "learned positions" in name, report.notes
    program = open_program(tmp_path / "m.pte")
    assert len(program.delegates) == 1
    names = {row.name for row in report.linears}
    assert {linear.name for linear in find_linears(program.vulkan)} == names
    runner = load_runner(tmp_path / "m.pte", "reference")
    eager = load_eager(checkpoint, "8da4w", ARITHMETIC_OF["vulkan"])
    compared = compare_layerwise(runner, eager, list(range(9)), TOLERANCE["float32"])
    assert compared.first is None and compared.probes > 4 * len(eager.layers)


@pytest.mark.parametrize("layers", [2, *thorough([4])])
@pytest.mark.parametrize("name", UNLIKE_LLAMA)
def test_layers_unlike_llamas_on_xnnpack(name, layers, unlike_llama, tmp_path):
    checkpoint = unlike_llama(name, layers)
    report = _assert_program_equals_eager(checkpoint, XNNPACK, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)
    alone = any("lowered separately" in note for note in report.notes)
    assert alone == (layers == 2 or "norms after alone" in name), report.notes


def _inspected(program):
    return invoked(["inspect", str(program)]).output


def test_llama4_on_vulkan_is_one_delegate(tmp_path):
    checkpoint = int4_checkpoint(random_model("Llama4", **SMALL_LLAMA4), tmp_path)
    report = _assert_program_equals_eager(checkpoint, VULKAN, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)
    assert any("All 3 experts" in note for note in report.notes)
    names = [row.name for row in report.linears]
    assert "layers.1.feed_forward.experts.2.w2" in names
    assert len(names) == 2 * 4 + 3 + 4 * 3 + 1 + 1  # attention, dense, experts, router, output
    program = open_program(tmp_path / "m.pte")
    assert len(program.delegates) == 1
    shown = _inspected(tmp_path / "m.pte")
    assert "3 experts in layers 1, all computed" in shown and "3 × expert gate" in shown
    assert {linear.name for linear in find_linears(program.vulkan)} == set(names)


@pytest.fixture(scope="module")
def keys_as_values(tmp_path_factory):
    """Of a layer with a window, and one without, whose keys are the values too."""
    fields = {
        **GEMMA4_LARGER, "num_hidden_layers": 2, "intermediate_size": 64,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    return int4_checkpoint(
        random_model("Gemma4Unified", **fields), tmp_path_factory.mktemp("values")
    )


@pytest.mark.parametrize("options", [VULKAN, XNNPACK], ids=["vulkan", "xnnpack"])
def test_keys_that_are_the_values(options, keys_as_values, tmp_path):
    report = _assert_program_equals_eager(keys_as_values, options, tmp_path / "m.pte")
    names = {row.name for row in report.linears}
    assert {"layers.1.attention.wk", "layers.1.attention.wv"} <= names
    assert_verified(tmp_path / "m.pte", keys_as_values)


SCALED = {
    "GraniteMoeShared": GRANITE_MOE | {"num_local_experts": 2, "shared_intermediate_size": 32},
    "Afmoe": AFMOE | {"num_experts": 2, "num_dense_layers": 0, "global_attn_every_n_layers": 1},
}


@pytest.mark.parametrize("kind", SCALED)
def test_the_shared_expert_of_a_mixture_that_is_scaled(kind, tmp_path):
    """No score multiplies it, but a factor does, with the other experts; or a factor multiplies a
    router's sigmoids, which are no gate then."""
    fields = SCALED[kind] | {"num_hidden_layers": 1}
    checkpoint = int4_checkpoint(random_model(kind, **fields), tmp_path)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", VULKAN_FLOAT)
    assert_as_planned(report, checkpoint)
    names = {row.name for row in report.linears}
    assert "layers.0.feed_forward.shared_expert.w2" in names
    found = find_linears(open_program(tmp_path / "m.pte").vulkan)
    assert {linear.name for linear in found} == names


@pytest.fixture(scope="module")
def weighed_experts(tmp_path_factory):
    """Of one layer, which has all that one of Qwen 3 MoE has."""
    fields = {**QWEN3_MOE, "num_hidden_layers": 1, "num_experts": 3}
    return int4_checkpoint(random_model("Qwen3Moe", **fields), tmp_path_factory.mktemp("experts"))


def test_weighed_experts_on_vulkan(weighed_experts, tmp_path):
    report = _assert_program_equals_eager(weighed_experts, VULKAN, tmp_path / "m.pte")
    assert_as_planned(report, weighed_experts)
    program = open_program(tmp_path / "m.pte")
    names = {row.name for row in report.linears}
    assert "layers.0.feed_forward.experts.2.w2" in names and "layers.0.feed_forward.router" in names
    assert {linear.name for linear in find_linears(program.vulkan)} == names
    packed = check_packed(program.vulkan, open_checkpoint(weighed_experts).tensors, 32)
    assert len(packed) == len(names) - 1 and not any(check.problem for check in packed)
    # What attention and all experts read, attention's result, each expert's last linear's, logits'.
    choices = [op for op in program.vulkan.operators if "choose_qparams" in op.kind]
    assert len(choices) == 2 + 1 + 3 + 1
    shown = _inspected(tmp_path / "m.pte")
    assert "3 experts in layers 0, all computed" in shown and "3 × expert gate" in shown
    # Whether or not a text is routed to one of the two.
    wrong = wrong_beside(tmp_path / "m.pte", weighed_experts, exchange_experts)
    assert wrong == ["layers.0.feed_forward.experts.2.w2"]
    _assert_an_expert_that_no_text_reaches_is_told(tmp_path / "m.pte", weighed_experts)


def _assert_an_expert_that_no_text_reaches_is_told(path, checkpoint):
    """Its answer is never added."""
    eager, program = load_eager(checkpoint), open_program(path)
    tokens, left = _text_that_leaves_an_expert(eager)
    runner = load_runner(program, "reference")
    assert compare_layerwise(runner, eager, tokens, TOLERANCE["float32"]).first is None
    _leave_out(program.vulkan, left)
    told = compare_layerwise(load_runner(program, "reference"), eager, tokens, TOLERANCE["float32"])
    assert told.first is not None and told.first.step == "a call to every expert"


def _text_that_leaves_an_expert(eager):
    """(Two tokens, an expert behind the first that neither is routed to.)"""
    mixture = eager.layers[0].feed_forward
    picked = set()
    handle = mixture.router.register_forward_hook(
        lambda _module, _given, logits: picked.update(
            logits.topk(mixture.activated).indices.flatten().tolist()
        )
    )
    for tokens in ([token, token + 1] for token in range(90)):
        picked.clear()
        eager.reset()
        eager(torch.tensor([tokens]), torch.tensor([0]))
        if left := {1, 2} - picked:
            break
    handle.remove()
    return tokens, min(left)


def _leave_out(graph, expert):
    """The sum with the answer of that expert becomes what it is added to."""
    edges = DefUse(graph)
    cut = next(
        operator
        for operator in graph.operators
        if operator.kind == "aten.slice_copy"
        and graph.tensor(operator.out).shape[-1] == 1
        and graph.plain(operator.named_args["start"]) == expert
    )
    (weighed,) = edges.consumers[cut.out]
    answer = graph.operators[weighed].out
    (place,) = edges.consumers[answer]
    added = graph.operators[place]
    (before,) = {added.named_args["a"], added.named_args["b"]} - {answer}
    del graph.operators[place]
    graph.operators = [
        replace(one, args=tuple(before if arg == added.out else arg for arg in one.args))
        for one in graph.operators
    ]


def test_weighed_experts_on_xnnpack(weighed_experts, tmp_path):
    """The first expert's answer is still there when the next one was skipped or computed."""
    report = _assert_program_equals_eager(weighed_experts, XNNPACK, tmp_path / "m.pte")
    assert_as_planned(report, weighed_experts)
    wrong = wrong_beside(tmp_path / "m.pte", weighed_experts, exchange_experts)
    assert wrong == ["layers.0.feed_forward.experts.2.w2"]
    assert "6 jumps: experts that no token" in _inspected(tmp_path / "m.pte")
    eager = load_eager(weighed_experts, XNNPACK.scheme, ARITHMETIC_OF[XNNPACK.backend])
    tokens, left = _text_that_leaves_an_expert(eager)
    two_words = " ".join(f"w{token}" for token in tokens)
    (said,) = verified(report.output, weighed_experts, two_words, 1).not_compared
    assert said.startswith(f"experts that no text is routed to, {left} of layer 0: ")
    assert verified(report.output, weighed_experts).not_compared == []


@pytest.mark.thorough
@pytest.mark.parametrize("options", [VULKAN, VULKAN_FLOAT, XNNPACK], ids=str)
def test_experts_that_are_picked_with_a_bias(options, tmp_path):
    """LFM2 MoE: weighed by sigmoids, in a layer of two, behind a short convolution."""
    checkpoint = int4_checkpoint(random_model("Lfm2Moe", **SMALL_LFM2_MOE), tmp_path)
    report = _assert_program_equals_eager(checkpoint, options, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)
    assert_verified(report.output, checkpoint)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [VULKAN, VULKAN_FLOAT], ids=str)
def test_an_expert_of_every_token_behind_a_gate(options, tmp_path):
    """Qwen 2 MoE; on XNNPACK as test_delta_rule_programs.py has it."""
    fields = {**QWEN2_MOE, "num_hidden_layers": 1, "num_experts": 3}
    checkpoint = int4_checkpoint(random_model("Qwen2Moe", **fields), tmp_path)
    report = _assert_program_equals_eager(checkpoint, options, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)
    names = {row.name for row in report.linears}
    assert "layers.0.feed_forward.shared_expert.w2" in names
    assert {linear.name for linear in find_linears(open_program(report.output).vulkan)} == names


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("Gemma3", {}), ("Phi3", {"partial_rotary_factor": 0.5, "pad_token_id": None})],
)
def test_families_on_vulkan(kind, fields, tmp_path):
    """A gelu for a silu; a rotary embedding of only part of each head."""
    checkpoint = int4_checkpoint(random_model(kind, num_hidden_layers=1, **fields), tmp_path)
    report = _assert_program_equals_eager(checkpoint, VULKAN_FLOAT, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)


@pytest.mark.parametrize(("context", "factors"), [(32, "short"), (33, "long")])
def test_the_factors_of_longrope_are_noted(context, factors):
    fields = {**TINY, "rope_scaling_attention_factor": 1.2, **LONGROPE, "max_seq_len": context}
    backbone = Backbone(config_from_params(fields, "params.json"))
    notes = notes_on(backbone, VULKAN, RoundedAgain())
    assert any(f"LongRoPE's {factors} factors" in note for note in notes)


@pytest.mark.parametrize(("context", "dtype"), [(2048, "fp16"), (2049, "fp16"), (2049, "fp32")])
def test_attention_that_a_phone_sums_in_float16_is_noted(context, dtype):
    backbone = Backbone(config_from_params({**TINY, "max_seq_len": context}, "params.json"))
    notes = notes_on(backbone, ExportOptions(activation_dtype=dtype), RoundedAgain())
    found = any("sdpa-half-sums" in note for note in notes)
    assert found == (context > 2048 and dtype == "fp16")


def test_llama4_with_chunks_on_xnnpack(tmp_path):
    fields = {**SMALL_LLAMA4, "attention_chunk_size": 8, "num_experts_per_tok": 1,
              "num_local_experts": 2, "intermediate_size_mlp": 64}  # fmt: skip
    checkpoint = int4_checkpoint(random_model("Llama4", **fields), tmp_path)
    report = _assert_program_equals_eager(checkpoint, XNNPACK, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)
    assert not any("All 2 experts" in note for note in report.notes)
    # One way around each expert, and its end.
    shown = _inspected(tmp_path / "m.pte")
    assert "4 jumps: experts that no token of a call picks are skipped" in shown
    assert " XnnpackBackend delegates, " in shown


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory):
    return int4_checkpoint(random_model("Gemma2", **WINDOWED), tmp_path_factory.mktemp("gemma2"))


def test_soft_caps_and_windows_on_xnnpack(gemma2, tmp_path):
    # In floating point: tanh and gelu differ in the last bit, and rounding activations to int8
    # would make a step of that.
    options = ExportOptions(backend="xnnpack", scheme="weight-only", allow_fallback=True)
    _assert_program_equals_eager(gemma2, options, tmp_path / "m.pte")


def test_soft_caps_and_windows_on_vulkan(gemma2, tmp_path):
    """A prefill across the window's edge, pieces of all kinds and steps beyond it, in one delegate
    with a layer that attends to all."""
    path = tmp_path / "m.pte"
    report = export_checkpoint(gemma2, path, VULKAN_FLOAT)
    eager = load_eager(gemma2, "weight-only", ARITHMETIC_OF["vulkan"])
    tokens = torch.randint(96, (1, 40), generator=torch.Generator().manual_seed(1))
    for device in DEVICES_OF["vulkan"]:
        runner = load_runner(path, device)
        for lengths in WINDOW_CALLS:
            _assert_calls_agree(runner, eager, tokens, lengths)
    assert_as_planned(report, gemma2)
    program = open_program(path)
    names = {row.name for row in report.linears}
    assert {linear.name for linear in find_linears(program.vulkan)} == names
    # A mask for each kind of layer, and caches of the window's size where there is one.
    assert sum(op.kind == "aten.where" for op in program.vulkan.operators) == 2
    assert sorted(program.vulkan.tensor(i).shape for i in cache_values(program.vulkan)) == [
        (2, 7, 16), (2, 7, 16), (64, 2, 16), (64, 2, 16),
    ]  # fmt: skip
    compared = compare_layerwise(load_runner(path, "reference"), eager, tokens[0].tolist(), 1e-4)
    assert compared.first is None and compared.probes > 10


# Window of 8: to its edge, over it, from beyond it; steps from the first on.
WINDOW_CALLS = ([7, 1, 1], [8, 1, 5, 20], [40], [3, 4, 2, 1, 9, 1], [1] * 12)


def _assert_calls_agree(runner, eager, tokens, lengths):
    runner.reset()
    eager.reset()
    at = 0
    for length in lengths:
        call = tokens[:, at : at + length], torch.tensor([at])
        found, expected = runner.forward(*call).reshape(-1), eager.forward(*call).reshape(-1)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), (lengths, at)
        at += length


@pytest.mark.parametrize("kind", thorough(["Llama4", "Mistral"]))
def test_chunks_and_windows_on_vulkan(kind, tmp_path):
    fields = {"sliding_window": 6, "num_hidden_layers": 4}
    if kind == "Llama4":
        fields = {**SMALL_LLAMA4, "attention_chunk_size": 5}
    checkpoint = int4_checkpoint(random_model(kind, **fields), tmp_path)
    report = _assert_program_equals_eager(checkpoint, VULKAN, tmp_path / "m.pte")
    assert_as_planned(report, checkpoint)
    # Layers that are alike are copies of one, the mask among what the first computes for all.
    assert any("lowered separately" in note for note in report.notes) == (kind == "Llama4")
