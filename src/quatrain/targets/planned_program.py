"""A planned program, and the known defects that it would meet in 8da4w."""

from dataclasses import dataclass

from quatrain.arithmetic import ActivationDtype
from quatrain.int4 import Scheme
from quatrain.targets.catalogue import Defect, GpuProfile, load_defects
from quatrain.targets.triggers.program_triggers import rows_that_sums_hold

_ITEM_SIZE: dict[ActivationDtype, int] = {"fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class PlannedProgram:
    """What is known of a program before it is made; None means unknown.

    `scheme` and `activation_dtype` where somebody asked for them, `rows` the most tokens of a call,
    `channels` the inputs of the narrowest int4 linear, `group_size` of all of them.
    """

    scheme: Scheme | None = None
    activation_dtype: ActivationDtype | None = None
    rows: int | None = None
    channels: int | None = None
    group_size: int | None = None


def defects_on(profile: GpuProfile, runtime: str | None) -> list[Defect]:
    """The known defects of `runtime` on that GPU, certain or on a condition; an unknown runtime may
    have every one."""
    return [
        defect
        for defect in load_defects()
        if defect.affects_runtime(runtime)
        and defect.certainty_on(profile) in ("certain", "conditional")
    ]


def met_in_8da4w(
    defects: list[Defect], dtype: ActivationDtype, planned: PlannedProgram
) -> list[Defect]:
    """The defects that an 8da4w program in `dtype` meets; its zero points are int8 in fp32."""
    met = {"zero_points_float", "zero_points_half"} if dtype == "fp16" else set()
    if not _sums_hold(dtype, planned):
        met.add("more_rows_than_sums")
    return [defect for defect in defects if defect.trigger in met]


def _sums_hold(dtype: ActivationDtype, planned: PlannedProgram) -> bool:
    """Whether no prompt is longer than what the group-sum buffer of every linear holds."""
    if planned.rows is None or planned.channels is None:
        return False
    return planned.rows <= rows_that_sums_hold(planned.channels, _ITEM_SIZE[dtype])


def way_to_8da4w(met: list[Defect], dtype: ActivationDtype, planned: PlannedProgram) -> str | None:
    """What to do otherwise for an 8da4w program in `dtype` that only one defect is against."""
    triggers = {defect.trigger for defect in met}
    if triggers == {"more_rows_than_sums"} and planned.channels is not None:
        limit = rows_that_sums_hold(planned.channels, _ITEM_SIZE[dtype])
        return f"in {dtype} with a prefill-chunk-size of {limit} or less" if limit > 1 else None
    return None


def defect_text(defect: Defect) -> str:
    """Which defect it is, when it strikes and what fixed it, for people."""
    fixed = f", fixed in runtime {defect.fixed_in}" if defect.fixed_in else ""
    condition = f" ({defect.condition})" if defect.condition else ""
    return f"{defect.id}: {defect.title}{condition}{fixed}"
