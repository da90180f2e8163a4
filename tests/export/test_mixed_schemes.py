"""Programs whose linears are of both schemes: by a plan of hand, or chosen by measurement."""

from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.models.tiny_checkpoint import write_checkpoint

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportRequest, export_for_target, export_with_auto_schemes
from quatrain.export.plan.plan import plan_programs
from quatrain.export.scheme_plan import PlannedLinear, SchemePlan, read_scheme_plan
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.program.inspect.linears import find_linears
from quatrain.runtime.load import load_runner
from quatrain.verify.eager import eager_for_program, load_eager
from quatrain.verify.program_info import program_info

BY_HAND = """
default = "8da4w"

[linears]
"*.feed_forward.w2" = { scheme = "weight-only" }
"layers.1.attention.*" = "weight-only"
"layers.1.attention.wq" = { scheme = "8da4w", kl = 0.01 }
"""
WEIGHT_ONLY_BY_HAND = {
    "layers.0.feed_forward.w2", "layers.1.feed_forward.w2", "layers.2.feed_forward.w2",
    "layers.1.attention.wk", "layers.1.attention.wv", "layers.1.attention.wo",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, so that one template serves all that is exported, and a tokenizer whose tokens
    are bytes."""
    folder = write_checkpoint(
        tmp_path_factory.mktemp("c") / "c", vocab_size=256, n_layers=3, max_seq_len=128
    )
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: index for index, letter in enumerate(alphabet)}, [])
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.save(str(folder / "tokenizer.json"))
    return folder


def weight_only(program: Path) -> set[str]:
    linears = find_linears(open_program(program).vulkan)
    return {linear.name for linear in linears if linear.scheme == Scheme.WEIGHT_ONLY}


def test_a_plan_by_hand_is_what_the_program_computes(checkpoint, tmp_path):
    (tmp_path / "plan.toml").write_text(BY_HAND)
    request = ExportRequest(scheme_plan=read_scheme_plan(tmp_path / "plan.toml"))
    report = export_for_target(checkpoint, tmp_path / "m.pte", request)
    assert weight_only(tmp_path / "m.pte") == WEIGHT_ONLY_BY_HAND
    kernels = {row.name for row in report.linears if row.kernel == "et_vk.linear_q4gsw"}
    assert kernels == WEIGHT_ONLY_BY_HAND
    (planned,) = plan_programs(checkpoint, request).programs
    assert planned.scheme == "mixed" and planned.predicted_bytes is not None
    assert planned.predicted_bytes.file == pytest.approx(report.bytes, rel=0.01)
    program = open_program(tmp_path / "m.pte")
    eager, _ = eager_for_program(
        open_checkpoint(checkpoint), program_info(program), program.vulkan, VULKAN_ARITHMETIC
    )

    def draw(generator):
        return torch.randint(256, (1, 6), generator=generator)

    runner = load_runner(program, "reference")
    assert_equal_but_for_rounding(runner, eager, draw, ((0, 5), (5, 6)))


def test_a_plan_of_one_scheme_is_that_scheme(checkpoint, tmp_path):
    plan = SchemePlan({"*": PlannedLinear(Scheme.WEIGHT_ONLY)})
    export_for_target(checkpoint, tmp_path / "a.pte", ExportRequest(scheme_plan=plan))
    export_for_target(checkpoint, tmp_path / "b.pte", ExportRequest(scheme=Scheme.WEIGHT_ONLY))
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "b.pte").read_bytes()


def test_auto_keeps_to_what_it_may_cost_and_its_plan_makes_the_same_program(checkpoint, tmp_path):
    request = ExportRequest()
    all_8da4w = _cost(checkpoint, None)
    export_with_auto_schemes(checkpoint, tmp_path / "m.pte", request, max_kl=all_8da4w / 3)
    chosen = weight_only(tmp_path / "m.pte")
    assert 0 < len(chosen) < 3 * 7
    assert _cost(checkpoint, chosen) < all_8da4w / 1.5  # on another text than it was chosen by
    assert "on 4 texts of 64 tokens from" in (tmp_path / "m.schemes.toml").read_text()
    again = replace(request, scheme_plan=read_scheme_plan(tmp_path / "m.schemes.toml"))
    export_for_target(checkpoint, tmp_path / "again.pte", again)
    assert (tmp_path / "again.pte").read_bytes() == (tmp_path / "m.pte").read_bytes()


def test_auto_refuses_a_plan_beside_it(checkpoint, tmp_path):
    request = ExportRequest(scheme_plan=SchemePlan({}, Scheme.WEIGHT_ONLY))
    with pytest.raises(InputError, match="but the scheme plan sets it; leave one of them out"):
        export_with_auto_schemes(checkpoint, tmp_path / "m.pte", request)


def test_a_linear_that_a_defect_of_the_target_strikes_is_weight_only(checkpoint, tmp_path):
    """dq8ca-m-gt-k: a prompt may have more tokens, 96, than narrow linears have inputs, 64."""
    request = ExportRequest(target="mali-g715", runtime="1.4", max_seq_len=96)
    said = []
    export_with_auto_schemes(
        checkpoint, tmp_path / "m.pte", request, max_kl=100.0, explain=said.append
    )
    linears = find_linears(open_program(tmp_path / "m.pte").vulkan)
    dynamic = {linear.name for linear in linears if linear.scheme == Scheme.DYNAMIC_INT8}
    assert dynamic == {f"layers.{index}.feed_forward.w2" for index in range(3)}
    plan = read_scheme_plan(tmp_path / "m.schemes.toml")
    asked = replace(request, scheme_plan=plan, activation_dtype="fp32")
    assert [program.refused for program in plan_programs(checkpoint, asked).programs] == [None]
    longer = replace(asked, max_seq_len=128)
    (refused,) = plan_programs(checkpoint, longer).programs
    assert "Make layers.0.feed_forward.w2 and similar linears weight-only" in str(refused.refused)
    assert "# dq8ca-m-gt-k" in (tmp_path / "m.schemes.toml").read_text()
    assert any("8da4w: in fp32 no known defect" in sentence for sentence in said)


def _cost(checkpoint: Path, weight_only: set[str] | None) -> float:
    """KL from all weight-only, of random tokens, with all but `weight_only` in 8da4w."""
    tokens = torch.randint(256, (4, 64), generator=torch.Generator().manual_seed(3))
    logits = []
    for scheme in (Scheme.WEIGHT_ONLY, Scheme.DYNAMIC_INT8):
        eager = load_eager(checkpoint, scheme)
        if scheme == Scheme.DYNAMIC_INT8:
            for name in weight_only or ():
                linear = eager.get_submodule(name)
                linear.arithmetic = replace(linear.arithmetic, least_quantized_rows=None)
        eager.make_room(*tokens.shape)
        with torch.inference_mode():
            logits.append(eager.logits(eager.hidden(tokens, 0)).log_softmax(-1))
    return float((logits[0].exp() * (logits[0] - logits[1])).sum(-1).mean())


WRONG = {
    "no TOML": ("[linears", "cannot be read as TOML"),
    "an unknown field": ('[linears]\n"*" = { scheme = "8da4w", why = 1 }', "'why' is unknown"),
    "an unknown table": ("[layers]", "'layers' is unknown, expected default or linears"),
    "an unknown scheme": ('[linears]\n"*" = "int8"', "scheme is 'int8', expected 8da4w or weig"),
    "no number": ('[linears]\n"*" = { scheme = "8da4w", kl = "low" }', "expected a number of nats"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_a_plan_is_refused(case, tmp_path):
    text, message = WRONG[case]
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_scheme_plan(tmp_path / "plan.toml")


def test_a_plan_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "plan.toml").write_text('default = "8da4w"', encoding="utf-8-sig")
    assert read_scheme_plan(tmp_path / "plan.toml").default == Scheme.DYNAMIC_INT8


def test_a_plan_of_another_checkpoint_is_refused():
    with pytest.raises(
        InputError, match=r"'layers.9.\*' matches no int4 linear of this checkpoint"
    ):
        SchemePlan({"layers.9.*": PlannedLinear(Scheme.WEIGHT_ONLY)}).schemes(["output"])
    with pytest.raises(InputError, match=r"has no scheme for 'output'; add a line, or above"):
        SchemePlan({"layers.0.*": PlannedLinear(Scheme.WEIGHT_ONLY)}).schemes(
            ["layers.0.attention.wq", "output"]
        )


CONTRADICTIONS = {
    "another scheme": {"scheme": Scheme.WEIGHT_ONLY},
    "a backend of one scheme": {"backend": "xnnpack"},
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_plan_and_what_contradicts_it_are_refused(case):
    with pytest.raises(InputError, match="leave one of them out"):
        ExportRequest(scheme_plan=SchemePlan({}, Scheme.DYNAMIC_INT8), **CONTRADICTIONS[case])
