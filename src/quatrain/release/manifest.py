"""manifest.json: the files of a release, and everything needed to make the same bytes again."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from quatrain.checkpoint.files.hub import is_on_hub
from quatrain.quantize.output.resumable import sha256_of
from quatrain.release.spec import ReleaseSpec, key_of
from quatrain.release.tasks.store import versions

FORMAT, SEVERAL = "quatrain-release-1", "quatrain-matrix-1"  # of one release, and of several


def manifest(
    report: Mapping[str, Any],
    spec: ReleaseSpec,
    sources: Mapping[str, list[dict[str, Any]]],
    checkpoint: Mapping[str, str] | None,
    files: Sequence[Path],
) -> dict[str, Any]:
    """The sources and results of a release.

    Args:
        report: From `report_data`.
        spec: The request, with paths replaced so that it is the same on any machine.
        sources: Name, bytes and SHA-256 of each file of the model ("source"), and of the one that
            it was measured against ("reference"), if that is another one.
        checkpoint: The SHA-256 of the quantized checkpoint by file; None if nothing was quantized.
        files: All files of the release but this one.
    """
    reference = " --reference REFERENCE" if spec.reference and not is_on_hub(spec.reference) else ""
    return {
        "format": FORMAT,
        "name": report["name"],
        "made_with": versions(),
        **sources,
        "licence": report["licence"],
        "options": _options(spec)
        if checkpoint is None
        else _options(replace(spec, **spec.quantizing)),
        "checkpoint": checkpoint,
        "programs": {file["file"]: file["phones"] for file in report["files"]},
        "files": {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file).hexdigest()}
            for file in files
        },
        "rebuild": f"quatrain release SOURCE -o NEW --spec release.toml{reference}, with these "
        "versions",
        # Another time they tell other speeds; all other files are the same bytes.
        "tell_speed": sorted(file.name for file in files if file.stem == "report"),
    }


def _options(spec: ReleaseSpec) -> dict[str, Any]:
    """The options by their names on the command line; of a path only its last part."""
    values = {key_of(field.name): getattr(spec, field.name) for field in fields(spec)}
    return {key: v.name if isinstance(v, Path) else v for key, v in values.items()}
