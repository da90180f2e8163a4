"""What the Vulkan runtime computes wrongly or does not load is refused before the work."""

import pytest
from tests.support.tiny_checkpoint import write_checkpoint

from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint, plan_program
from quatrain.export.vulkan.limits import check_limits
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.program.edit.retarget import retarget
from quatrain.stages import Stages
from quatrain.targets import choose_for_target

WIDE = {"dim": 512, "hidden_dim": 512, "group_size": 256, "n_layers": 1}
REFUSED = {
    "groups of 256 in 8da4w": (
        WIDE,
        r"the group size is 256, and 8da4w prefill, of two rows or more, is wrong on every GPU "
        r"with groups above 128.*--weight-only-linear.*--group-size 128",
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
    ],
)
def test_what_the_runtime_computes_is_not_refused(shape, tmp_path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path / "c", **shape))
    for scheme in Scheme:
        check_limits(opened, scheme)


def test_the_cpu_takes_every_group_and_width(tmp_path) -> None:
    for number, (shape, _) in enumerate(REFUSED.values()):
        # Linears of one shape, of which XNNPACK lowers one.
        width, heads = shape.get("dim", 64), shape.get("n_heads", 4)
        small = {**shape, "n_layers": 1, "n_kv_heads": heads, "hidden_dim": width}
        checkpoint = write_checkpoint(tmp_path / str(number), **small)
        options = ExportOptions(backend="xnnpack")
        report = export_checkpoint(checkpoint, tmp_path / f"{number}.pte", options)
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
