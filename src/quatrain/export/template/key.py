"""The cache key of a layer template: everything that it depends on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.backbone.params.written import written_params
from quatrain.executorch_wheel import installed_versions
from quatrain.export.template.constants import tensors_of
from quatrain.int4 import Scheme
from quatrain.linear.int4 import Int4Linear

_PACKAGE = Path(__file__).parents[2]
# What decides a template's bytes: the modules that are traced, and what lowers and writes them.
_CODE = (
    "backbone", "linear", "transform", "export", "program", "arithmetic.py", "int4.py",
    "executorch_wheel.py", "multiples.py", "short_lists.py", "text_files.py",
)  # fmt: skip


def template_key(backbone: Backbone, scheme: Scheme, settings: dict[str, Any]) -> str:
    """A hexadecimal digest of all that the template of `backbone` depends on.

    That is its config, the names, dtypes and shapes of its tensors, its modules, the versions of
    what lowers it and our own code, and `settings`, which JSON can hold. Its int4 linears count as
    those of `scheme`, whichever they are: that in which they are lowered.
    """
    tensors = [(name, str(t.dtype), *t.shape) for name, t in tensors_of(backbone).items()]
    depends_on = {
        "config": written_params(backbone.config),
        "tensors": tensors,
        "modules": module_descriptions(backbone, scheme),
        "settings": settings,
        "versions": installed_versions(),
        "code": code_digest(_PACKAGE),
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def module_descriptions(
    backbone: nn.Module, scheme: Scheme
) -> list[tuple[str, str, dict[str, Any]]]:
    """(path, class, plain attributes) of each module of `backbone`, in order; int4 linears' class
    is `scheme`."""
    return [
        (
            path,
            f"{scheme} linear" if isinstance(part, Int4Linear) else type(part).__qualname__,
            _plain_attributes(part),
        )
        for path, part in backbone.named_modules(remove_duplicate=False)
    ]


def _plain_attributes(part: nn.Module) -> dict[str, Any]:
    """The numbers, words and dtypes that a module was built with; tensors are described apart."""
    plain = bool | int | float | str | tuple | torch.dtype | None
    return {
        name: str(value) if isinstance(value, torch.dtype) else value
        for name, value in vars(part).items()
        if isinstance(value, plain) and not name.startswith("_")
    }


def code_digest(package: Path) -> str:
    """A digest of the sources that decide a template's bytes, in the package at that folder: of
    each one's name and content."""
    digest = hashlib.sha256()
    for place in _CODE:
        path = package / place
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.relative_to(package).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()
