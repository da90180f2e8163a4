"""The sizes of a model in its pickled file, where llama2.c's training script puts them."""

import re
import zipfile
from pathlib import Path

from quatrain.errors import shell_word

# What it keeps them under, and one of them, as a pickle has them.
_SIZES = (b"model_args", b"n_heads")
_PLAIN_NAME = re.compile(r"[\w.-]+")


def how_to_state_sizes(file: Path) -> str | None:
    """The command that makes a params.json of the sizes in `file`; None if it has none."""
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            found = [archive.read(name) for name in pickles]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return None
    stated = any(all(part in pickle for part in _SIZES) for pickle in found)
    if not stated or not _PLAIN_NAME.fullmatch(file.name):
        return None
    script = (
        f"import json, torch; sizes = torch.load('{file.name}', map_location='cpu')['model_args']; "
        "sizes.pop('dropout', None); json.dump(sizes, open('params.json', 'w'))"
    )
    return f'cd {shell_word(file.parent)} && python -c "{script}"'
