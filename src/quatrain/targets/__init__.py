"""GPU profiles, known defects of the Vulkan runtime, and checks of programs against them.

The figures and the defects are data (`gpus.toml`, `defects.toml`), each with its source.
"""

from quatrain.targets.catalogue import Defect, GpuProfile, find_gpu, load_defects, load_gpus
from quatrain.targets.choice import TargetChoice, choose_for_target
from quatrain.targets.doctor import Examination, Finding, examine, examine_file, fatal_findings
from quatrain.targets.planned_program import PlannedProgram
from quatrain.targets.refusals import require_target

__all__ = [
    "Defect",
    "Examination",
    "Finding",
    "GpuProfile",
    "PlannedProgram",
    "TargetChoice",
    "choose_for_target",
    "examine",
    "examine_file",
    "fatal_findings",
    "find_gpu",
    "load_defects",
    "load_gpus",
    "require_target",
]
