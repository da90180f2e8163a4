"""Files and versions of the installed wheels, read without importing them.

The schemas of the `.pte` container and of a delegate are files inside the executorch wheel; a
release that moves or changes them changes the format that `quatrain.program` reads and writes.
`export.lowering.executorch_internals` holds what exporting leans on, `linear.private_operators`
what the eager layers do; both name the versions that this module holds where they find something
changed.
"""

import importlib.metadata
import importlib.util
from pathlib import Path

from quatrain.errors import InputError, QuatrainError

# What Quatrain was written for and is tested with; pyproject.toml asks for the same.
VERSIONS = {"torch": "2.13.0", "executorch": "1.5.1", "torchao": "0.18.0"}


def installed_versions() -> dict[str, str]:
    """The installed version of each package of `VERSIONS`."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def changed(package: str, what: str, found: object, expected: object) -> QuatrainError:
    """The error to raise if `what`, which is private to `package`, has changed."""
    version, written_for = importlib.metadata.version(package), VERSIONS[package]
    again = "--force-reinstall --no-deps " if version == written_for else ""  # it is damaged
    return QuatrainError(
        f"{what}: found {found}, expected {expected}. {package} {version} is installed, and "
        f"Quatrain was written for {written_for}: pip install {again}{package}=={written_for}"
    )


def program_schema_text() -> str:
    """The FlatBuffers schema of the `.pte` container."""
    folder = "exir/_serialize/"
    return _text(folder + "scalar_type.fbs") + "\n" + _text(folder + "program.fbs")


def vulkan_schema_text() -> str:
    """The FlatBuffers schema of a Vulkan delegate."""
    return _text("backends/vulkan/serialization/schema.fbs")


def xnnpack_schema_text() -> str:
    """The FlatBuffers schema of an XNNPACK delegate."""
    return _text("backends/xnnpack/serialization/schema.fbs")


def _text(name: str) -> str:
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        expected = VERSIONS["executorch"]
        raise InputError(f"executorch is not installed: pip install executorch=={expected}")
    file = Path(next(iter(spec.submodule_search_locations))) / name
    if not file.is_file():
        raise changed("executorch", f"{name} of the wheel", "no such file", "a schema")
    return file.read_text(encoding="utf-8")
