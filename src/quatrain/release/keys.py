"""Options of other commands that `quatrain release` has as keys of a release.toml only."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from quatrain.errors import InputError

_KEYS = (
    "group-size", "embedding", "output-layer", "max-seq-len", "prefill-chunk-size", "tokenizer",
    "chat",
)  # fmt: skip


def with_keys(message: str) -> str:
    """`message`, and which of the options in it are keys of a release.toml."""
    keys = [key for key in _KEYS if re.search(rf"--{key}(?![\w-])", message)]
    if not keys:
        return message
    said = f"{', '.join(keys)} {'is a key' if len(keys) == 1 else 'are keys'} of --spec"
    return f"{message.rstrip('.')}; in a release {said} (docs/release.md)"


@contextmanager
def naming_keys() -> Iterator[None]:
    """An `InputError` of the block says which of the options that it names are keys."""
    try:
        yield
    except InputError as error:
        raise InputError(with_keys(str(error))) from error
