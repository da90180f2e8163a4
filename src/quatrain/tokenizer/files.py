"""A tokenizer's files: what they are called, where they lie, how they are copied.

| where | tokenizer.json | tokenizer_config.json |
|---|---|---|
| a model's folder, an int4 checkpoint | `tokenizer.json` | `tokenizer_config.json` |
| beside the program `model.pte` | `model.tokenizer.json` | `model.tokenizer_config.json` |
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from quatrain.atomic_files import whole_copies
from quatrain.errors import InputError
from quatrain.json_files import read_object, write_json

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"  # where transformers 5 keeps the chat template


def config_beside(tokenizer: Path) -> Path:
    """The tokenizer_config.json that goes with `tokenizer`, of the same prefix; it may not be."""
    return tokenizer.with_name(f"{tokenizer.name.removesuffix(TOKENIZER)}{CONFIG}")


def beside(program: Path, name: str) -> Path:
    """Where the own copy of the file `name`, a tokenizer's, of the program `program` lies."""
    return program.with_name(f"{program.stem}.{name}")


def require_tokenizer(path: Path) -> None:
    """Raise `InputError` unless the file `path` can be opened."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the model's tokenizer.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a tokenizer.json: {error}") from error


def find_tokenizer(model: Path | str, *folders: Path) -> Path:
    """Find the tokenizer.json that goes with a program.

    Args:
        model: The program; `<stem>.tokenizer.json` beside it, else tokenizer.json, is its own.
        folders: Where to look for a tokenizer.json next, in order.

    Raises:
        InputError: Where there is none.
    """
    model = Path(model)
    own = beside(model, TOKENIZER)
    for file in (own, *(folder / TOKENIZER for folder in (model.parent, *folders))):
        if file.is_file():
            return file
    elsewhere = "".join(f", none in {folder}" for folder in folders)
    raise InputError(
        f"{model}: no tokenizer beside it ({own.name} or tokenizer.json){elsewhere}; "
        "copy the model's tokenizer.json there"
    )


def tokenizer_files_in(folder: Path) -> list[Path]:
    """What `copy_tokenizer_files` reads in `folder`."""
    names = (TOKENIZER, CONFIG, _TEMPLATE) if (folder / TOKENIZER).is_file() else ()
    return [folder / name for name in names if (folder / name).is_file()]


def copy_tokenizer_files(
    source: Path, folder: Path, bos_id: int | None = None, eos_ids: list[int] | None = None
) -> list[Path]:
    """Copy tokenizer.json from folder `source` to `folder`, with a tokenizer_config.json that
    holds the chat template and the given ids as well. Returns what it wrote: nothing where
    `source` has no tokenizer.json."""
    if not (source / TOKENIZER).is_file():
        return []
    config = read_object(source / CONFIG) if (source / CONFIG).is_file() else {}
    template = source / _TEMPLATE
    if template.is_file():
        try:
            config["chat_template"] = template.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise InputError(f"{template}: cannot be read as UTF-8 text: {error}") from error
    if eos_ids:
        config["eos_token_id"] = eos_ids
    if bos_id is not None:
        config["bos_token_id"] = bos_id
    written = [folder / TOKENIZER, folder / CONFIG]
    written[0].write_bytes((source / TOKENIZER).read_bytes())
    write_json(written[1], config)
    return written


@contextmanager
def written_beside(program: Path, write: Callable[[Path], list[Path]]) -> Iterator[list[Path]]:
    """The files that `write(folder)` writes and returns, as `program`'s own: they appear beside it
    once the block ends well."""
    with TemporaryDirectory(prefix="quatrain.") as made:
        copies = {beside(program, file.name): file for file in write(Path(made))}
        with whole_copies(copies):
            yield list(copies)


def copies_for(program: Path, source: Path) -> dict[Path, Path]:
    """`program`'s own tokenizer files, each with the one beside the program `source` that it is to
    be a copy of; those that are that file already are left out."""
    own = beside(source, TOKENIZER).is_file()
    copies = {}
    for name in (TOKENIZER, CONFIG):
        original = beside(source, name) if own else source.with_name(name)
        target = beside(program, name)
        if original.is_file() and target.resolve() != original.resolve():
            copies[target] = original
    return copies
