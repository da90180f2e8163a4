"""The request for a release, from the command line or a release.toml.

The keys of release.toml are the options' names: `max-kl = 0.1` is `--max-kl 0.1`. Paths in it are
relative to its folder.
"""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

from quatrain.errors import InputError, require_one_of, require_several
from quatrain.export.options import LEAST_CONTEXT
from quatrain.int4 import GROUP_SIZES, Scheme
from quatrain.quantize.tensor_formats import EmbeddingFormat, OutputFormat, Rounding
from quatrain.targets.runtimes import require_loadable
from quatrain.text_files import read_text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LEAST = {  # that a whole number may be
    "tokens": 2, "new_tokens": 1, "max_seq_len": LEAST_CONTEXT, "prefill_chunk_size": LEAST_CONTEXT,
}  # fmt: skip
_DIGEST = "sha256:"  # what the name of a model that release.toml knows by its files begins with
AXES = ("method", "scheme")  # what a release.toml may list several of
QUANTIZING = {"method": None, "group_size": 32, "embedding": "keep", "output_layer": "int4"}
ANY = "any"  # in place of a release that is not named
PROMPTS = (
    "Why is the sky blue?",
    "Write a short letter to a friend who has moved to another city.",
    "What is 17 plus 26? Explain each step.",
    "List three ways to save water at home.",
)


@dataclass(frozen=True)
class ReleaseSpec:
    """The contents of a release, and its gates.

    Attributes:
        name: The beginning of the file names; None means the model's own name.
        phones: Ids of phones and GPUs; each gets its own program or shares one.
        runtime: The ExecuTorch release in the app, such as 1.5; None means any.
        method: As in `quantize_model`, like the next three; for a floating-point model. None means
            the default of `quantize`, 32, "keep" and "int4".
        group_size: The number of weights that share a scale.
        embedding: How the embedding is stored.
        output_layer: How the output layer is stored.
        scheme: The scheme of the GPU programs; None means what suits each phone.
        max_seq_len: The context length in tokens; None means the model's own, at most 2048.
        prefill_chunk_size: As in `quatrain.export.ExportOptions`: the most tokens in one call.
        cpu: Whether to make a program for the CPU too, which every phone can run.
        tokenizer: A tokenizer.json to use instead of the model's own.
        reference: The floating-point model to compare a checkpoint with; None means the model
            itself if it is in floating point.
        text: The text of the measurements; None means the held-out text that comes with Quatrain.
        tokens: How many of its tokens to read.
        prompts: The prompts of expected.json.
        chat: Whether prompts are put into the chat template; None means if there is one.
        new_tokens: The most tokens of an answer.
        max_kl: Gate: the largest KL divergence from floating point, in nats.
        max_perplexity_ratio: Gate: the largest ratio of perplexities to floating point.
        max_mb: Gate: the largest program, in megabytes (10^6 bytes).
        no_defects: Gate: no phone may have a known defect, not even a possible one.

    Raises:
        InputError: A value is not one of these.
    """

    name: str | None = None
    phones: tuple[str, ...] = ()
    runtime: str | None = None
    method: Rounding | None = None
    group_size: int | None = None
    embedding: EmbeddingFormat | None = None
    output_layer: OutputFormat | None = None
    scheme: Scheme | None = None
    max_seq_len: int | None = None
    prefill_chunk_size: int | None = None
    cpu: bool = True
    tokenizer: Path | str | None = None
    reference: str | None = None
    text: Path | str | None = None
    tokens: int = 512
    prompts: tuple[str, ...] = PROMPTS
    chat: bool | None = None
    new_tokens: int = 48
    max_kl: float | None = None
    max_perplexity_ratio: float | None = None
    max_mb: float | None = None
    no_defects: bool = False

    def __post_init__(self) -> None:
        for name in ("phones", "prompts"):
            require_several(name, getattr(self, name))
        allowed: dict[str, tuple[Any, ...]] = {
            "method": (None, *get_args(Rounding)),
            "group_size": (None, *GROUP_SIZES),
            "embedding": (None, *get_args(EmbeddingFormat)),
            "output_layer": (None, *get_args(OutputFormat)),
            "scheme": (None, *map(str, Scheme)),
        }
        for name, values in allowed.items():
            require_one_of(key_of(name), getattr(self, name), values)
        for name, least in _LEAST.items():
            found = getattr(self, name)
            if found is not None and found < least:
                raise InputError(f"{key_of(name)} is {found}, expected {least} or more")
        for name in ("max_kl", "max_perplexity_ratio", "max_mb"):
            found = getattr(self, name)
            if found is not None and not (math.isfinite(found) and found > 0):
                raise InputError(f"{key_of(name)} is {found}, expected a number above 0")
        if self.name and not _NAME.fullmatch(self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits and . _ - only, beginning with "
                "a letter or digit: files are named after it"
            )
        if self.runtime is not None:
            if not isinstance(self.runtime, str):
                raise InputError(f"runtime is {self.runtime!r}, expected a text, such as '1.5'")
            require_loadable(self.runtime)
        if not self.prompts:
            raise InputError(
                "prompts is empty; name at least one, or leave it out for the default prompts"
            )

    def called(self, name: str) -> "ReleaseSpec":
        """A copy whose files are called `name` unless it has a name already."""
        return replace(self, name=self.name or name)

    @property
    def quantizing(self) -> dict[str, Any]:
        """How to quantize a floating-point model: as stated, or else by default."""
        said = {name: getattr(self, name) for name in QUANTIZING}
        return {name: QUANTIZING[name] if one is None else one for name, one in said.items()}

    @property
    def needs_reference(self) -> list[str]:
        """The gates that need a floating-point model."""
        gates = ("max_kl", "max_perplexity_ratio")
        return [key_of(name) for name in gates if getattr(self, name) is not None]


def key_of(name: str) -> str:
    """The name of a field in release.toml and as an option."""
    return name.replace("_", "-")


def merged_specs(file: Path | None, given: dict[str, Any]) -> list[ReleaseSpec]:
    """The settings of the release.toml `file`, overridden by those in `given` that are not None:
    one spec for each pair of the methods and schemes that it lists.

    Raises `InputError` if the file cannot be read, or has an unknown key or value.
    """
    said = {} if file is None else _read(file)
    values = said | {name: value for name, value in given.items() if value is not None}
    if str(values.get("reference", "")).startswith(_DIGEST):
        raise InputError(
            f"reference is the digest {values['reference']} of a model whose files manifest.json "
            "lists; give its path: --reference MODEL"
        )
    stated = [values.pop(axis, None) for axis in AXES]
    axes = [value if isinstance(value, tuple) else (value,) for value in stated]
    known = {str(scheme): scheme for scheme in Scheme}  # release.toml has texts
    return [
        ReleaseSpec(**values, method=method, scheme=known.get(scheme, scheme))
        for method, scheme in product(*axes)
    ]


def digest_name(digests: Iterable[str]) -> str:
    """The name of a model in a release.toml, independent of its path: `digests` are the SHA-256 of
    its files, in hexadecimal."""
    return _DIGEST + hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def write_spec(path: Path, spec: ReleaseSpec) -> None:
    """Write `spec` as the release.toml `path`: all that is not as it would be without it."""
    lines = [
        f"{key_of(field.name)} = {_as_toml(getattr(spec, field.name))}\n"
        for field in fields(spec)
        if getattr(spec, field.name) != field.default
    ]
    path.write_text("".join(lines), encoding="utf-8")


def _as_toml(value: Any) -> str:
    """Strings, numbers, booleans and lists of strings are in TOML what they are in JSON."""
    plain = str(value) if isinstance(value, Path | Scheme) else value
    return json.dumps(plain, ensure_ascii=False)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file}: cannot be read as TOML: {error}") from error
    known = {key_of(field.name): field.name for field in fields(ReleaseSpec)}
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(
            f"{file}: {unknown[0]!r} is not a key of a release, expected one of {', '.join(known)}"
        )
    return {known[key]: _value(file, key, known[key], value) for key, value in content.items()}


def _value(file: Path, key: str, name: str, value: Any) -> Any:
    """`value` converted to the type of its field. Raises `InputError` if it is of another kind."""
    several = name in AXES and isinstance(value, list)
    kind, matches = _KINDS["texts" if several else _kind_of(name)]
    if not matches(value) or (several and not value):
        raise InputError(f"{file}: {key} is {value!r}, expected {kind}")
    if isinstance(value, list):
        return tuple(value)
    if name in ("tokenizer", "text"):
        return file.parent / value
    if name == "reference" and (file.parent / value).exists():
        return str(file.parent / value)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "texts": (
        "a list of texts",
        lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    ),
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "whole": ("a whole number", lambda value: _is_number(value) and isinstance(value, int)),
    "number": ("a number", _is_number),
    "text": ("a text", lambda value: isinstance(value, str)),
}


def _kind_of(name: str) -> str:
    if name in ("phones", "prompts"):
        return "texts"
    if name in ("cpu", "chat", "no_defects"):
        return "flag"
    if name in ("group_size", *_LEAST):
        return "whole"
    return "number" if name.startswith("max_") else "text"
