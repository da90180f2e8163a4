"""What the Vulkan delegate does not take, and its runtime computes wrongly or does not load, is
refused before the work."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.models.tiny_checkpoint import PARAMS, write_checkpoint
from tests.support.thorough import thorough

from quatrain.backbone.params.params import config_from_params
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint, plan_program
from quatrain.export.for_target import planned_program
from quatrain.export.plan.plan import plan_programs
from quatrain.export.vulkan.call_length import longest_call
from quatrain.export.vulkan.limits import LARGEST_FLOAT_EMBEDDING, check_limits
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.program.edit.retarget import retarget
from quatrain.stages import Stages
from quatrain.targets import choose_for_target

WIDE: dict[str, Any] = {"dim": 512, "hidden_dim": 512, "group_size": 256, "n_layers": 1}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "groups of 256 in 8da4w": (
        WIDE,
        r"the group size is 256, and 8da4w prefill, of two rows or more, is wrong on every GPU "
        r"with groups above 128.*--weight-only-linear.*--group-size 128",
    ),
    "an int4 embedding 48 wide": (
        {"dim": 48, "group_size": 16, "embedding": "int4", "n_heads": 3, "n_kv_heads": 3},
        r"int4 embedding has rows of 48.*multiples of 32.*--embedding int8",
    ),
    "12 rotated channels": (
        {"use_hf_rope": True, "head_dim": 16, "partial_rotary_factor": 0.75},
        r"12 channels of each head are rotated \(head_dim 16, partial_rotary_factor 0\.75\).*"
        r"multiple of 8\. Use --backend xnnpack",
    ),
    "heads of 12 in Meta's layout": (
        {"dim": 96, "n_heads": 8}, r"head_dim is 12.*Meta's layout.*multiple of 8.*xnnpack",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_limits_are_refused_before_the_work(case, tmp_path) -> None:
    shape, message = REFUSED[case]
    checkpoint = write_checkpoint(tmp_path / "c", **shape)
    stages = Stages()
    with pytest.raises(InputError, match=message):
        export_checkpoint(checkpoint, tmp_path / "m.pte", stages=stages)
    assert set(stages.seconds) == {"open the checkpoint"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"use_hf_rope": True, "partial_rotary_factor": 0.5},
        {"dim": 96, "n_heads": 8, "no_rope_layer_interval": 1},
        {"sliding_window": 8, "attn_logit_softcapping": 9.0},
        {"attention_chunk_size": 8},
    ],
)
def test_what_the_runtime_computes_is_not_refused(shape, tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c", **shape))
    for scheme in Scheme:
        check_limits(opened, ExportOptions(scheme=scheme), 64)


# All that is refused above, in as few models as have it: linears of one shape, of which XNNPACK
# lowers one.
ON_THE_CPU: dict[str, dict[str, Any]] = {
    "groups of 256, 12 rotated channels, windows and soft caps": {
        **WIDE, "n_heads": 32, "n_kv_heads": 32, "use_hf_rope": True, "head_dim": 16,
        "partial_rotary_factor": 0.75, "sliding_window": 8, "attn_logit_softcapping": 9.0,
    },
    "heads of 12 in Meta's layout": {
        "dim": 96, "n_heads": 8, "n_kv_heads": 8, "hidden_dim": 96, "n_layers": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", ON_THE_CPU)
def test_no_group_and_width_is_refused_for_the_cpu(case, tmp_path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", **ON_THE_CPU[case])
    (planned,) = plan_programs(checkpoint, backends=("xnnpack",)).programs
    assert planned.refused is None and planned.predicted_bytes is not None


@pytest.mark.parametrize("case", thorough(ON_THE_CPU))
def test_the_cpu_takes_every_group_and_width(case, tmp_path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", **ON_THE_CPU[case])
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", ExportOptions(backend="xnnpack"))
    assert {row.kernel for row in report.linears} == {"xnnpack.qd8_f32_qb4w"}


def test_groups_of_256_are_exported_weight_only_and_stay_so(tmp_path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", **WIDE)
    choice = choose_for_target("adreno-740", "1.5", plan_program(checkpoint))
    assert choice.scheme == Scheme.WEIGHT_ONLY
    assert any("groups of 256: 8da4w prefill" in reason for reason in choice.reasons)
    options = ExportOptions(scheme=choice.scheme)
    export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    program = open_program(tmp_path / "m.pte")
    message = r"m\.pte: layers\.0\.attention\.wq has groups of 256.*Leave it weight-only"
    with pytest.raises(InputError, match=message):
        retarget(program, Scheme.DYNAMIC_INT8)


@pytest.mark.parametrize(
    ("fields", "asked", "longest", "remedy"),
    [
        ({}, {"max_seq_len": 37}, 37, {"prefill_chunk_size": 36}),
        ({}, {"prefill_chunk_size": 3}, 3, {"prefill_chunk_size": 4}),
        ({}, {"max_seq_len": 3}, 3, {"max_seq_len": 4}),
        # Layers of which some attend by the kernel.
        (
            {"layer_types": ("sliding_attention", "full_attention") * 2, "sliding_window": 8},
            {"prefill_chunk_size": 14},
            14,
            {"prefill_chunk_size": 12},
        ),
    ],
)
def test_calls_that_attention_of_a_release_does_not_compute(
    fields, asked, longest, remedy, tmp_path
) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c"))
    opened = replace(opened, config=replace(opened.config, **fields))

    def check(release, **more) -> None:
        target = choose_for_target("adreno-740", release)
        options = ExportOptions(target=target, **asked | more)
        check_limits(opened, options, options.max_seq_len or 64)

    ((name, value),) = remedy.items()
    option = f"--{name.replace('_', '-')} {value}"
    message = rf"runtime 1\.4, where a call takes at most {longest} tokens: sdpa-uneven-calls.*"
    with pytest.raises(InputError, match=rf"{message}Export with {option}\."):
        check("1.4")
    check("1.4", **remedy)
    check("1.4", examine=False)
    check("1.5")


@pytest.mark.parametrize(
    "fields",
    [
        {"sliding_window": 8},
        {"attn_logit_softcapping": 9.0},
        {"use_sink_scores": True},
        {"layer_types": ("conv",) * 4},
    ],
)
def test_calls_of_any_length_are_taken_without_that_kernel(fields, tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c"))
    masked = replace(opened, config=replace(opened.config, **fields))
    options = ExportOptions(target=choose_for_target("adreno-740", "1.4"), max_seq_len=37)
    check_limits(masked, options, 37)


def test_heads_of_layers_without_a_window_count_too(tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c"))
    config = replace(opened.config, use_hf_rope=True, global_head_dim=12)
    with pytest.raises(InputError, match=r"12 channels of each head are rotated \(head_dim 12,"):
        check_limits(replace(opened, config=config), ExportOptions(), 64)


def test_what_decides_on_a_choice_is_of_int4_linears_and_of_the_longest_call() -> None:
    """The predictions of Gemma 3n's streams read 3 channels, in floating point."""
    gemma3n = {**PARAMS, "altup_num_inputs": 3, "per_layer_dim": 32, "max_seq_len": 4096}
    model: Any = SimpleNamespace(config=config_from_params(gemma3n, ""), params={}, group_size=32)
    planned = planned_program(model, 4096, None)
    assert (planned.rows, planned.channels) == (2048, 32)


def test_the_longest_call_beside_a_window_is_a_multiple_of_4() -> None:
    """Of a third of 2,048 tokens, 682, attention without a window fails until runtime 1.4."""
    sliding = {"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"] * 2}
    heads = {"dim": 96, "n_heads": 3, "n_kv_heads": 3}
    params = {**PARAMS, **heads, **sliding, "max_seq_len": 4096}
    assert longest_call(config_from_params(params, "")) == 680


# Gemma 3 270M: a float table of 167,772,160 elements, and a window of 512 tokens.
GEMMA = {"vocab_size": 262144, "dim": 640, "sliding_window": 512, "max_seq_len": 2048}
REMEDIES = {
    "int8": r"262144 x 640, is int8 here but written in floating point.*at most 134217728 "
    r"elements\. Quantize the model again with --embedding int4; or use --backend xnnpack",
    "fp": r"is stored in floating point.*quatrain convert --embedding int4; or use --backend",
}


@pytest.mark.parametrize("kind", REMEDIES)
def test_a_float_embedding_that_the_delegate_does_not_take_is_refused(kind, tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c", embedding=kind))
    large = replace(opened, config=replace(opened.config, **GEMMA))
    with pytest.raises(InputError, match=REMEDIES[kind]):
        check_limits(large, ExportOptions(), 512)
    check_limits(large, ExportOptions(embedding_input=True), 512)
    # All that is wrong is said at once, so that no remedy leads to the next refusal.
    narrow = replace(large, config=replace(large.config, head_dim=12))
    with pytest.raises(InputError, match=r"head_dim is 12.* Besides, .*--embedding int4"):
        check_limits(narrow, ExportOptions(), 2048)
    on_mali = ExportOptions(target=choose_for_target("mali-g715", "1.2"))
    with pytest.raises(
        InputError, match=r"later than 1\.2.*--backend xnnpack \(without --target\)"
    ):
        check_limits(large, on_mali, 512)


def test_shared_keys_under_a_soft_cap_are_refused(tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c"))
    fields: dict[str, Any] = {"num_kv_shared_layers": 2, "attn_logit_softcapping": 9.0}
    sharing = replace(opened, config=replace(opened.config, **fields))
    with pytest.raises(InputError, match=r"num_kv_shared_layers: .*use --backend xnnpack"):
        check_limits(sharing, ExportOptions(), 64)


@pytest.mark.parametrize(
    "fields", [{"sliding_window": 8}, {"layer_types": ("conv",) + ("full_attention",) * 3}]
)
def test_a_runtime_without_the_operators_of_a_layer_is_refused(fields, tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c"))
    masked = replace(opened, config=replace(opened.config, **fields))
    for release, refused in (("1.2", True), ("1.3", False)):
        options = ExportOptions(target=choose_for_target("adreno-740", release))
        if refused:
            with pytest.raises(InputError, match=r"runtime 1\.2 lacks operators; ship a later"):
                check_limits(masked, options, 64)
        else:
            check_limits(masked, options, 64)


def test_an_int4_embedding_of_any_size_is_taken(tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c", embedding="int4"))
    check_limits(replace(opened, config=replace(opened.config, **GEMMA)), ExportOptions(), 512)


def test_the_partitioner_takes_what_is_said_to_be_the_largest_embedding() -> None:
    import torch
    from executorch.backends.vulkan.op_registry import vulkan_supported_ops
    from executorch.exir.dialects._ops import ops
    from torch._subclasses.fake_tensor import FakeTensorMode

    edge: Any = ops.edge
    takes: Any = vulkan_supported_ops[edge.aten.embedding.default].are_node_inputs_supported_fn
    for rows, taken in ((LARGEST_FLOAT_EMBEDDING // 64, True), (262144 * 10, False)):
        graph = torch.fx.Graph()
        table = graph.placeholder("table")
        with FakeTensorMode():
            table.meta["val"] = torch.empty(rows, 64)
        assert takes(graph.call_function(edge.aten.embedding.default, (table, table))) is taken
