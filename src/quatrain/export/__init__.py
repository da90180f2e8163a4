"""From an int4 checkpoint to an ExecuTorch program."""

from quatrain.export.exporter import ExportReport, export_checkpoint, plan
from quatrain.export.options import ExportOptions

__all__ = ["ExportOptions", "ExportReport", "export_checkpoint", "plan"]
