"""Exports an int4 checkpoint as an ExecuTorch program.

What is asked for is checked without torch, which is imported once a program is to be made.
"""

from typing import TYPE_CHECKING

from quatrain.export.options import ExportOptions
from quatrain.export.request import ExportRequest
from quatrain.lazy_names import lazy_names

if TYPE_CHECKING:
    from quatrain.export.auto_schemes import export_with_auto_schemes
    from quatrain.export.exporter import export_checkpoint
    from quatrain.export.for_target import export_for_target, plan_program
    from quatrain.export.report import ExportReport

__all__ = [
    "ExportOptions",
    "ExportReport",
    "ExportRequest",
    "export_checkpoint",
    "export_for_target",
    "export_with_auto_schemes",
    "plan_program",
]

if not TYPE_CHECKING:  # for a type checker it would make every name valid
    __getattr__ = lazy_names(
        __name__,
        {
            "quatrain.export.auto_schemes": ("export_with_auto_schemes",),
            "quatrain.export.exporter": ("export_checkpoint",),
            "quatrain.export.for_target": ("export_for_target", "plan_program"),
            "quatrain.export.report": ("ExportReport",),
        },
    )
