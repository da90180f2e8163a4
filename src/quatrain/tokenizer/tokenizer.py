"""Text to tokens and back: a tokenizer.json, and the tokenizer_config.json beside it."""

import json
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import tokenizers

from quatrain.errors import InputError

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"


class Tokenizer:
    """A Hugging Face tokenizer with what generation needs beside it.

    `bos_id`: the token that begins a text, or None. `eos_ids`: the tokens that end one, maybe
    none. `chat_template`: a Jinja template, or None.
    """

    def __init__(self, model: tokenizers.Tokenizer, config: dict[str, Any], source: str):
        self.model = model
        self.source = source
        self.bos_token = _token_text(config.get("bos_token"))
        self.eos_token = _token_text(config.get("eos_token"))
        self.bos_id = self._id_of(self.bos_token)
        self.eos_ids = self._eos_ids(config)
        self.chat_template = _chat_template(config.get("chat_template"))

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read the tokenizer.json `path`, and `*tokenizer_config.json` of the same prefix beside
        it (for `model.tokenizer.json`, `model.tokenizer_config.json`) where there is one.

        Raises `InputError` where either is damaged or `path` is missing.
        """
        path = Path(path)
        try:
            model = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; give the model's tokenizer.json") from None
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{path}: is not a tokenizer.json: {error}") from error
        config_path = path.with_name(f"{path.name.removesuffix(TOKENIZER)}{CONFIG}")
        config = _read_object(config_path) if config_path.is_file() else {}
        return cls(model, config, str(path))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`; special tokens written out in it (`<|im_end|>`) become themselves.

        `add_special_tokens` puts the beginning-of-text token before it where the model was
        trained so. Not for the text of `apply_chat`, whose template writes its own.
        """
        return self.model.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.model.decode(ids, skip_special_tokens=skip_special_tokens)

    def stream(self) -> "TextStream":
        """A decoder that takes one id at a time."""
        return TextStream(self)

    def apply_chat(self, messages: list[dict[str, Any]]) -> str:
        """The prompt for `messages` ({"role": ..., "content": ...}), ready for the answer.

        Raises `InputError` where the model has no chat template or it refuses the messages.
        """
        if self.chat_template is None:
            raise InputError(
                f"{self.source}: has no chat template in {CONFIG}; this is not a chat model, "
                "so leave --chat out"
            )
        try:
            template = _template_environment().from_string(self.chat_template)
            return template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=self.bos_token or "",
                eos_token=self.eos_token or "",
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise InputError(f"{self.source}: its chat template failed: {error}") from error

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self.model.token_to_id(token)

    def _eos_ids(self, config: dict[str, Any]) -> list[int]:
        """`eos_token` and, in files that Quatrain wrote, all of `eos_token_id`."""
        listed = config.get("eos_token_id")
        candidates = listed if isinstance(listed, list) else [listed]
        found = [self._id_of(self.eos_token), *candidates]
        return sorted({token for token in found if isinstance(token, int)})


class TextStream:
    """Decodes ids as they come, holding back a character until all its bytes are there.

    The pieces joined are what `Tokenizer.decode` gives for all the ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._context: list[int] = []  # already shown; some decoders look back at one token
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that `token` completes, often its own, sometimes none."""
        self._held.append(token)
        text = self._new_text()
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""  # half a character, most likely
        if text:
            self._context, self._held = self._held, []
        return text

    def finish(self) -> str:
        """What is still held back, an incomplete character as U+FFFD."""
        text = self._new_text()
        self._context, self._held = self._held, []
        return text

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._held)[len(before) :]


def beside(program: Path, name: str) -> Path:
    """Where the own copy of the file `name`, a tokenizer's, of the program `program` lies."""
    return program.with_name(f"{program.stem}.{name}")


def copy_tokenizer_files(
    source: Path, folder: Path, bos_id: int | None = None, eos_ids: list[int] | None = None
) -> list[Path]:
    """Copy tokenizer.json from folder `source` to `folder`, with a tokenizer_config.json that
    holds the chat template and the given ids as well. Returns what it wrote: nothing where
    `source` has no tokenizer.json."""
    if not (source / TOKENIZER).is_file():
        return []
    config = _read_object(source / CONFIG) if (source / CONFIG).is_file() else {}
    template = source / "chat_template.jinja"  # where transformers 5 keeps it
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


def write_json(path: Path, value: Any) -> None:
    """Write `value` as the JSON file `path`, the same bytes for the same value.

    Raises `InputError` where a string in it has no UTF-8.
    """
    try:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path.name}: its source holds half of a surrogate pair ({error.object[error.start]!r}"
            "), which is no character; write that file again"
        ) from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def _token_text(token: Any) -> str | None:
    """A token in tokenizer_config.json is its text, or an object around it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _chat_template(template: Any) -> str | None:
    """The template, or of several named ones the default."""
    if isinstance(template, list):
        named = {entry.get("name"): entry for entry in template if isinstance(entry, dict)}
        template = named.get("default", {}).get("template")
    return template if isinstance(template, str) else None


def _template_environment() -> jinja2.Environment:
    """As chat templates are written for: whitespace trimmed around blocks, no access to Python."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    return environment
