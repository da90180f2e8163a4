"""What the doctor finds in a program, defect by defect."""

from dataclasses import replace
from pathlib import Path

from quatrain.errors import InputError
from quatrain.program import open_program
from quatrain.targets import Finding, examine, find_gpu


def findings(path: Path, gpu: str, runtime: str | None) -> dict[str, Finding]:
    """By the id of the defect; `gpu` may be "no-16bit", a desktop without 16-bit storage."""
    if gpu == "no-16bit":
        profile = replace(find_gpu("desktop"), storage_16bit=False)
    else:
        profile = find_gpu(gpu)
    try:
        return {f.defect: f for f in examine(open_program(path), [profile], runtime)}
    except InputError:
        return {}  # no Vulkan delegate, and so none of its runtime's defects
