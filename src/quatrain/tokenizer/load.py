"""Loads a tokenizer, from a tokenizer.json or another file, with the settings in the files beside
it."""

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import tokenizers

from quatrain.errors import InputError
from quatrain.tokenizer.chat import pick, render, templates_of
from quatrain.tokenizer.end_tokens import end_ids_of_config, turn_end
from quatrain.tokenizer.executorch_form import restore_metaspace, restore_nfc, restore_space_runs
from quatrain.tokenizer.files import (
    SENTENCEPIECE,
    read_config_of,
    require_tokenizer,
    tokenizer_class,
)
from quatrain.tokenizer.mistral_words import fix_mistral_words
from quatrain.tokenizer.named_tokens import (
    add_named_tokens,
    found_as_written,
    special_texts,
    without_flags_of_named,
)
from quatrain.tokenizer.rebuilt import build_as_class
from quatrain.tokenizer.tokenizer_json import is_tokenizers_error, read_tokenizer_json
from quatrain.tokenizer.vocabulary_files import ends_added, is_vocabulary, read_vocabulary


class Tokenizer:
    """A Hugging Face tokenizer, with what generation needs in addition.

    Attributes:
        bos_id: The token that begins a text, or None.
        eos_ids: The tokens that end a text, possibly none: those of tokenizer_config.json, and the
            token with which the chat template ends an answer.
        chat_template: A Jinja template, or None.
        chat_templates: All templates by name; `chat_template` is `default`.
    """

    def __init__(self, model: tokenizers.Tokenizer, config: dict[str, Any], source: str):
        self.model = model
        self.source = source
        self.special_tokens = special_texts(config)
        self.bos_token = self.special_tokens.get("bos_token")
        self.eos_token = self.special_tokens.get("eos_token")
        self.bos_id = self._id_of(self.bos_token)
        self.chat_templates = templates_of(config.get("chat_template"))
        self.chat_template = self.chat_templates.get("default")
        self.eos_ids = sorted(
            {*end_ids_of_config(config, self._id_of(self.eos_token)), *self._turn_end()}
        )

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a tokenizer.json, and the files beside it, as transformers' AutoTokenizer does.

        Args:
            path: The tokenizer.json, or a tokenizer.model, vocab.json (with merges.txt) or
                tekken.json. `*tokenizer_config.json` with the same prefix is read if it exists: for
                `model.tokenizer.json`, `model.tokenizer_config.json`; in the same way
                special_tokens_map.json, added_tokens.json and chat templates.

        Raises:
            InputError: `path` is missing, or a file is damaged.
        """
        model, config, _ = read_tokenizer(Path(path))
        return cls(model, config, str(path))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text.

        Args:
            text: The text; special tokens written in it (`<|im_end|>`) become these tokens.
            add_special_tokens: Put the token that begins a text before it, if the model was trained
                with it. Not for the result of `apply_chat`, whose template writes it.

        Raises:
            InputError: The text has characters that Python makes of bytes that are not UTF-8, or
                for which the tokenizer has no token.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the text is not UTF-8: found {text[error.start]!r} after "
                f"{text[max(0, error.start - 20) : error.start]!r}; give it in UTF-8"
            ) from error
        try:
            return self.model.encode(text, add_special_tokens=add_special_tokens).ids
        except BaseException as error:
            if not is_tokenizers_error(error):
                raise
            raise InputError(
                f"{self.source}: cannot tokenize {text[:40]!r}: {error}; give the model's own "
                "tokenizer as --tokenizer, or leave out the characters that this one lacks"
            ) from error

    def begin(self, ids: list[int]) -> list[int]:
        """The tokens of a text's `ids`, from `encode`, that are put before every text."""
        same = (one == other for one, other in zip(self.encode(""), ids, strict=False))
        return ids[: sum(takewhile(bool, same))]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids beyond the vocabulary are
        skipped.

        Raises:
            InputError: An id is negative or larger than 2^32.
        """
        try:
            return self.model.decode(ids, skip_special_tokens=skip_special_tokens)
        except OverflowError as error:
            wrong = next(one for one in ids if not 0 <= one < 2**32)
            raise InputError(
                f"{wrong} is not a token id; those of {self.source} are 0 to "
                f"{self.model.get_vocab_size() - 1}"
            ) from error

    def stream(self) -> "TextStream":
        """A decoder that takes one id at a time."""
        return TextStream(self)

    def apply_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        template: str | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt for the next answer of a conversation, as transformers' `apply_chat_template`
        gives it.

        Args:
            messages: Each {"role": "user", "system" or "assistant", "content": a text}.
            tools: The tools that the model may call, each as a JSON schema.
            variables: Other variables of the template, such as {"enable_thinking": False}.
            template: The name of one of several templates; None means `default`, or `tool_use` if
                there are `tools`.
            add_generation_prompt: Whether to add the text that begins the answer.

        Raises:
            InputError: The model has no such chat template, or the template refuses the messages.
        """
        text = pick(self.chat_templates, template, tools is not None, self.source)
        given = self.special_tokens | dict(variables or {})
        return render(text, messages, given, self.source, tools, add_generation_prompt)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self.model.token_to_id(token)

    def _turn_end(self) -> list[int]:
        if self.chat_template is None:
            return []
        added = self.model.get_added_tokens_decoder()
        return turn_end(self.chat_template, self.special_tokens, added)


def read_tokenizer(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any], bool]:
    """(the tokenizer in `path`, a tokenizer.json or another form, with every token that is named
    beside it, which pads and cuts nothing; what those files say, as one tokenizer_config.json;
    whether the tokenizer is another than `path` alone holds).

    Raises `InputError` if a file is missing or damaged, `UnknownTokenizer` if it is of a kind that
    is not read.
    """
    require_tokenizer(path)
    config, added = read_config_of(path)
    if is_vocabulary(path):
        model, config = read_vocabulary(path, config)
        if path.name == SENTENCEPIECE:  # to which spaces become `▁` behind the added tokens
            config, added = found_as_written(config), found_as_written(added)
        config = _with_named(model, config, added, path)
        ends_added(model, config)
        return model, config, True
    model, changed = read_tokenizer_json(path)
    before = _added(model)
    model, rebuilt, config, added = build_as_class(model, path, config, added)
    changed |= rebuilt | fix_mistral_words(model, path, config)
    restore_metaspace(model, config)
    restore_nfc(model, config)
    restore_space_runs(model, config)
    config = _with_named(model, config, added, path)
    model.no_padding()
    model.no_truncation()
    # What a tokenizer.json cannot say: special tokens written out in a text are text.
    model.encode_special_tokens = config.get("split_special_tokens") is True
    return model, config, changed or _added(model) != before


def _with_named(
    model: tokenizers.Tokenizer, config: dict[str, Any], added: dict[str, Any], path: Path
) -> dict[str, Any]:
    """`config`, all of whose tokens `model` knows from here on."""
    add_named_tokens(model, config, added, str(path))
    own_class = tokenizer_class(path, config) == "Qwen2Tokenizer"
    return without_flags_of_named(model, config) if own_class else config


def _added(model: tokenizers.Tokenizer) -> dict[int, str]:
    return {index: repr(token) for index, token in model.get_added_tokens_decoder().items()}


class TextStream:
    """Decodes ids one by one, and holds back a character until all its bytes are there.

    The concatenated parts equal `Tokenizer.decode` of all the ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._context: list[int] = []  # already shown; some decoders look back at one token
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that `token` completes: often its own, sometimes none."""
        self._held.append(token)
        text = self._new_text()
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""  # half a character, most likely
        if text:
            self._context, self._held = self._held, []
        return text

    def finish(self) -> str:
        """The text that is still held back; an incomplete character becomes U+FFFD."""
        text = self._new_text()
        self._context, self._held = self._held, []
        return text

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._held)[len(before) :]
