"""The manifest beside a converted checkpoint: which files were made from which."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from quatrain.quantize.opened_source import OpenedSource
from quatrain.quantize.output.output_folder import WEIGHTS
from quatrain.quantize.output.resumable import sha256_of
from quatrain.quantize.output.writer import Written
from quatrain.quantize.quantized_tensor import relative_rms
from quatrain.quantize.report import rounded_linears


def digested(file: Path) -> dict[str, Any]:
    """The name, size and SHA-256 of a source file."""
    digest = sha256_of(file).hexdigest()
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": digest}


def manifest(
    opened: OpenedSource, files: list[dict[str, Any]], options: dict[str, Any], written: Written
) -> dict[str, Any]:
    """The sources and results, without paths or times."""
    rounded = opened.rounded()
    return {
        "quatrain": version("quatrain"),
        "source": files,
        "options": options,
        "rounded": {
            "tensors": len(rounded),
            "relative_rms_error": float(f"{relative_rms(rounded):.6g}"),
            "linears": {
                one.name: {"was": one.was, "relative_rms_error": one.relative_rms_error}
                for one in rounded_linears(opened)
            },
        },
        "output": {"name": WEIGHTS, "bytes": written.bytes, "sha256": written.sha256},
    }
