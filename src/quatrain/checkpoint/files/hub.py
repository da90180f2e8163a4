"""`hf://owner/name`: a model of the Hugging Face hub, as a folder on this machine."""

import re
import shlex
from pathlib import Path

from quatrain.checkpoint.files.formats import PICKLED
from quatrain.errors import InputError
from quatrain.folder_entries import refuse_broken_links
from quatrain.short_lists import and_more

_HUB = re.compile(r"hf://(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
_IN_REPOSITORY = re.compile(r"hf://(\w[\w.-]*/\w[\w.-]*)/([\w./-]+\.gguf)")
_WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt")
# Files in subfolders, except chat templates: additional_chat_templates holds the named ones.
_BELOW = tuple(f"*/*{suffix}" for suffix in (".safetensors", ".json", *PICKLED))
# Other forms of the same weights, which many repositories hold beside model*.safetensors: together
# they are twice or three times the download.
_MODEL, _META = "model*.safetensors", "consolidated*"
_PICKLED = tuple(f"*{suffix}" for suffix in PICKLED)
_OF_TRAINING = ("optimizer*", "rng_state*")  # which may be larger than the model


def local_path(path: Path | str) -> Path:
    """`path` itself, or the folder that `hf://owner/name` or `hf://owner/name@revision` names.

    If the repository has model*.safetensors, other forms of the weights are not fetched. If the hub
    cannot be reached, huggingface_hub's cache is used. Raises `InputError` if the model is not in
    the cache and cannot be fetched, or is only there as GGUF.
    """
    if not is_on_hub(path):
        return readable(Path(path))
    text = re.sub("^hf:/{1,2}", "hf://", str(path))
    match = _HUB.fullmatch(text)
    if not match:
        in_repository = _IN_REPOSITORY.fullmatch(text)
        raise InputError(
            f"{text}: expected hf://owner/name or hf://owner/name@revision"
            + (f"; {_to_fetch(*in_repository.groups())}" if in_repository else "")
        )
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def fetch(*wanted: str, unwanted: tuple[str, ...] = ()) -> Path:
        folder = snapshot_download(
            match[1],
            revision=match[2],
            allow_patterns=list(wanted),
            ignore_patterns=[*_BELOW, *unwanted],
        )
        return Path(folder)

    try:
        folder = fetch(*_WANTED, unwanted=(_META,))
        if not any(folder.glob(_MODEL)):
            folder = fetch(*_WANTED, *_PICKLED, unwanted=_OF_TRAINING)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{text}: cannot be fetched and is not in the local cache: {first_line}"
        ) from error
    if not any(file.suffix in (".safetensors", *PICKLED) for file in folder.iterdir()):
        try:
            there = HfApi().list_repo_files(match[1], revision=match[2])
        except Exception:  # offline, which each package for HTTP says by a class of its own
            there = []
        _refuse_gguf(text, match[1], there)
    return folder


def _refuse_gguf(text: str, repository: str, files: list[str]) -> None:
    """Raise `InputError` if the `files` of the `repository` that `text` names include GGUF's: which
    of them is meant is not known."""
    ggufs = sorted(name for name in files if name.endswith(".gguf"))
    if ggufs:
        raise InputError(
            f"{text}: its weights are GGUF files: {and_more(ggufs, 8)}; "
            f"{_to_fetch(repository, ggufs[0])}"
        )


def _to_fetch(repository: str, file: str) -> str:
    words = shlex.join(["hf", "download", repository, file])
    return f"fetch one with `{words} --local-dir DIR`, and give the file"


def is_on_hub(path: Path | str) -> bool:
    """Whether `path` is hf://owner/name."""
    # A pathlib.Path has made one slash of two by the time it arrives.
    return str(path).startswith("hf:/")


def readable(path: Path) -> Path:
    """`path`, which may be missing. Raises `InputError` if the system refuses to look, and for a
    folder that has a link that leads nowhere in place of a text that would be read."""
    try:
        if path.is_dir():
            refuse_broken_links(path)
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path  # said by what opens it
    except (OSError, ValueError) as error:  # too long, no permission; a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{str(path)[:300]!r}: cannot be read: {reason}") from error
    return path
