"""Names of a package that are imported from their modules when they are first used."""

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_names(
    package: str, names_of_module: Mapping[str, tuple[str, ...]]
) -> Callable[[str], object]:
    """The `__getattr__` of `package` (PEP 562) for names of modules that take time to import."""
    module_of_name = {name: module for module, names in names_of_module.items() for name in names}

    def getter(name: str) -> object:
        if name not in module_of_name:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module_of_name[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return getter
