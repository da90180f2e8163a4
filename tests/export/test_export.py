"""Programs compute what the eager backbone does, and every linear is accounted for."""

import pytest
import torch
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.comparisons.verified import assert_verified
from tests.support.models.tiny_checkpoint import FEW_SHAPES, PARAMS, QWEN_LIKE, write_checkpoint

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.kernels.assignment import dequantize_fallbacks
from quatrain.export.notes import notes_on
from quatrain.export.xnnpack.positive_scales import RoundedAgain
from quatrain.linear.int4 import compute_as
from quatrain.program import open_program
from quatrain.runtime.load import load_runner
from quatrain.targets import choose_for_target

TOKENS = torch.tensor([[3, 17, 90, 4, 55]])
# Where layers copied from a template, as in vulkan/test_replicated_layers.py, do not matter.
ONE_LAYER = {"n_layers": 1}
CASES = {
    "vulkan 8da4w": (ExportOptions(), {}),
    "vulkan weight-only": (ExportOptions(scheme="weight-only"), {"embedding": "int4", **ONE_LAYER}),
    "vulkan groups of 16, 48 wide": (
        ExportOptions(), {"dim": 48, "n_heads": 3, "n_kv_heads": 3, "group_size": 16, **ONE_LAYER},
    ),
    "vulkan weight-only, groups of 16": (
        ExportOptions(scheme="weight-only"),
        {"embedding": "int4", "group_size": 16, "hidden_dim": 80, **ONE_LAYER},
    ),
    "vulkan qwen-like": (ExportOptions(), {**ONE_LAYER, **QWEN_LIKE}),
    "vulkan embedding to hidden": (
        ExportOptions(embedding_input=True, hidden_output=True), ONE_LAYER,
    ),
    "vulkan int8 output, allowed": (
        ExportOptions(allow_fallback=True), {"output": "int8", **ONE_LAYER},
    ),
    "xnnpack qwen-like, int8 output": (
        ExportOptions(backend="xnnpack"),
        {"output": "int8", **ONE_LAYER, **FEW_SHAPES, **QWEN_LIKE},
    ),
    "xnnpack weight-only, allowed": (
        ExportOptions(backend="xnnpack", scheme="weight-only", allow_fallback=True),
        {"embedding": "int4", **ONE_LAYER, **FEW_SHAPES, "n_kv_heads": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_prefill_and_decode_equal_eager(case, tmp_path):
    options, shape = CASES[case]
    checkpoint = write_checkpoint(tmp_path / "c", **shape)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert_as_planned(report, checkpoint)
    if not options.hidden_output:
        assert_verified(report.output, checkpoint)
    opened = open_checkpoint(checkpoint)
    eager = build_backbone(
        opened.config,
        opened.tensors,
        options.scheme,
        group_size=opened.group_size,
        embedding_input=options.embedding_input,
        hidden_output=options.hidden_output,
    )
    compute_as(eager, ARITHMETIC_OF[options.backend])
    dequantize_fallbacks(eager, report.linears)
    draw = _embeddings if options.embedding_input else _tokens
    assert_equal_but_for_rounding(load_runner(tmp_path / "m.pte"), eager, draw, ((0, 4), (4, 5)))
    assert len(report.linears) == 7 * opened.config.n_layers + (not options.hidden_output)
    assert [row.name for row in report.linears if row.fallback] == _expected_fallbacks(
        case, report.linears
    )


def _tokens(generator):
    return torch.randint(PARAMS["vocab_size"], (1, 5), generator=generator)


def _embeddings(generator):
    return torch.randn(1, 5, PARAMS["dim"], generator=generator)


def _expected_fallbacks(case, rows):
    if "weight-only, allowed" in case:
        return [row.name for row in rows]
    return ["output"] if "int8 output, allowed" in case else []


def test_a_whole_backbone_is_one_delegate_call(tmp_path):
    export_checkpoint(write_checkpoint(tmp_path / "c"), tmp_path / "m.pte")
    program = open_program(tmp_path / "m.pte")
    assert [step.kind for step in program.methods["forward"].instructions] == ["delegate"]


def test_the_state_of_the_checkpoint_serves_both_schemes_unchanged(tmp_path):
    opened = open_checkpoint(write_checkpoint(tmp_path / "c"))
    state = dict(opened.tensors)
    before = {name: tensor.clone() for name, tensor in state.items()}
    results = [
        build_backbone(opened.config, state, scheme)(TOKENS, torch.tensor([0]))
        for scheme in ("8da4w", "weight-only")
    ]
    assert not torch.equal(*results)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_metadata_for_the_text_runner(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=1, bos_idx=1, eos_idx=[2, 5])
    export_checkpoint(checkpoint, tmp_path / "m.pte")
    metadata = open_program(tmp_path / "m.pte").metadata
    expected = {
        "get_bos_id": 1,
        "get_eos_ids": [2, 5],
        "get_max_seq_len": 64,
        "get_max_context_len": 64,
        "get_vocab_size": 128,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }
    assert {name: metadata[name] for name in expected} == expected


def test_token_0_may_end_a_text(tmp_path):
    export_checkpoint(write_checkpoint(tmp_path / "c", n_layers=1, eos_idx=0), tmp_path / "m.pte")
    assert open_program(tmp_path / "m.pte").metadata["get_eos_ids"] == 0


def test_scales_that_xnnpack_rounds_are_mentioned(tmp_path):
    opened = open_checkpoint(write_checkpoint(tmp_path / "c", n_layers=1))
    tensors = dict(opened.tensors)
    for scales, mentioned in ((tensors["output.scales"].bfloat16().float(), False),
                              (tensors["output.scales"] * 1.001, True)):  # fmt: skip
        backbone = build_backbone(opened.config, tensors | {"output.scales": scales})
        notes = notes_on(backbone, ExportOptions(backend="xnnpack"), RoundedAgain())
        assert any("bfloat16" in note for note in notes) == mentioned


REFUSED = {
    "int8 output on Vulkan": (
        ExportOptions(), {"output": "int8"},
        r"^output: is int8 per channel and .*--output-layer int4.* about 4 times the size",
    ),
    "the same without int8 activations elsewhere": (
        ExportOptions(scheme="weight-only", activation_dtype="fp16"), {"output": "int8"},
        r"^output: .* int8 activations in both schemes.* about 2 times the size",
    ),
    "weight-only on XNNPACK": (
        ExportOptions(backend="xnnpack", scheme="weight-only"), {},
        r"layers\.0\.attention\.wq and 28 more: XNNPACK .* no int4 group-wise kernel.* 8 times",
    ),
    "groups of 16 on XNNPACK": (
        ExportOptions(backend="xnnpack"), {"group_size": 16},
        r"wq and 28 more: has groups of fewer .*--group-size 32.*convert.*vulkan.* 8 times",
    ),
    "a longer context than the model's": (
        ExportOptions(max_seq_len=65), {}, "--max-seq-len is 65, but .* context of 64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_by_name(case, tmp_path):
    options, shape, message = REFUSED[case]
    checkpoint = write_checkpoint(tmp_path / "c", **shape)
    with pytest.raises(InputError, match=message):
        export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "metal"}, "backend is 'metal', expected one of vulkan, xnnpack"),
        ({"backend": "xnnpack", "activation_dtype": "fp16"}, "fp16 is for the Vulkan backend"),
        ({"max_seq_len": 2}, "--max-seq-len is 2, expected 3 or more"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        ExportOptions(**options)


def test_a_target_chooses_scheme_dtype_and_limits_and_refuses_what_fails_there(tmp_path):
    choice = choose_for_target("mali-g715", "1.3")
    options = ExportOptions(
        scheme=choice.scheme, activation_dtype=choice.activation_dtype, target=choice
    )
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=1)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert {row.kernel for row in report.linears} == {"et_vk.linear_q4gsw"}
    with pytest.raises(InputError, match=r"would fail on mali-g715, runtime 1\.3: dq8ca-"):
        bad = ExportOptions(activation_dtype="fp16", target=choice)
        export_checkpoint(checkpoint, tmp_path / "bad.pte", bad)
    assert not (tmp_path / "bad.pte").exists()
