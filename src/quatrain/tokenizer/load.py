"""Text to tokens and back: a tokenizer.json, and the tokenizer_config.json beside it."""

from pathlib import Path
from typing import Any

import tokenizers

from quatrain.errors import InputError
from quatrain.json_files import read_object
from quatrain.tokenizer.chat import render, template_of
from quatrain.tokenizer.end_tokens import end_ids_of_config
from quatrain.tokenizer.files import CONFIG, config_beside, require_tokenizer


class Tokenizer:
    """A Hugging Face tokenizer with what generation needs beside it.

    Attributes:
        bos_id: The token that begins a text, or None.
        eos_ids: The tokens that end one, maybe none.
        chat_template: A Jinja template, or None.
    """

    def __init__(self, model: tokenizers.Tokenizer, config: dict[str, Any], source: str):
        self.model = model
        self.source = source
        self.bos_token = _token_text(config.get("bos_token"))
        self.eos_token = _token_text(config.get("eos_token"))
        self.bos_id = self._id_of(self.bos_token)
        self.eos_ids = end_ids_of_config(config, self._id_of(self.eos_token))
        self.chat_template = template_of(config)

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a tokenizer.json, and the tokenizer_config.json beside it.

        Args:
            path: The tokenizer.json. `*tokenizer_config.json` of the same prefix is read where
                there is one: for `model.tokenizer.json`, `model.tokenizer_config.json`.

        Raises:
            InputError: Where `path` is missing, or either file is damaged.
        """
        path = Path(path)
        require_tokenizer(path)
        try:
            model = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{path}: is not a tokenizer.json: {error}") from error
        config_path = config_beside(path)
        config = read_object(config_path) if config_path.is_file() else {}
        return cls(model, config, str(path))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text.

        Args:
            text: Special tokens written out in it (`<|im_end|>`) become themselves.
            add_special_tokens: Put the beginning-of-text token before it where the model was
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
        """The prompt that asks for the answer to a conversation.

        Args:
            messages: Each {"role": "user", "system" or "assistant", "content": a text}.

        Raises:
            InputError: Where the model has no chat template, or it refuses the messages.
        """
        if self.chat_template is None:
            raise InputError(
                f"{self.source}: has no chat template in {CONFIG}; this is not a chat model, "
                "so leave --chat out"
            )
        return render(self.chat_template, messages, self.bos_token, self.eos_token, self.source)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self.model.token_to_id(token)


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


def _token_text(token: Any) -> str | None:
    """A token in tokenizer_config.json is its text, or an object around it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
