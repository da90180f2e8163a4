"""The names of tensors in a model's own file, for error messages."""

import re
from collections.abc import Callable, Mapping

InFile = Callable[[str], str]  # of a name of Meta's
_META_NAME = re.compile(r"(?:layers\.(\d+)\.)?([\w.]+?)(\.(?:weight|bias|scales|zeros))?")


def names_in_file(called: Mapping[str, str], modules: Mapping[str, str], layers: str) -> InFile:
    """As `called` says, or for a tensor that the file has not, as it would be called there: by its
    `modules`, each with its name here, and by how the name of a layer's begins."""
    own = {meta: name for name, meta in modules.items()}

    def name_of(name: str) -> str:
        match = _META_NAME.fullmatch(name)
        if name in called or not match or match[2] not in own:
            return called.get(name, name)
        return f"{f'{layers}{match[1]}.' if match[1] else ''}{own[match[2]]}{match[3] or ''}"

    return name_of
