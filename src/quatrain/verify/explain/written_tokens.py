"""A phone's output as tokens: given ones, or the model's own tokens of a text.

A text has many tokenizations, and a model writes others than its tokenizer does, garbled texts
above all. So wherever the likeliest token fits the text, it is taken.
"""

from collections.abc import Sequence

from quatrain.tokenizer import Tokenizer
from quatrain.verify.explain.decoding import CHARACTERS_LOST, LOST, ONE_BY_ONE, DecodingMistake
from quatrain.verify.explain.phone_output import PhoneOutput

# What apps and pages put in the place of a character, each for one.
_PLAIN = str.maketrans("\u00a0\u2018\u2019\u201c\u201d\u2013\u2014\u2026", " ''\"\"--.")


class WrittenTokens:
    """The tokens of `output` that are to be explained, at most `limit` of them.

    `first` are those of the tokenizer, or the phone's own, up to the one that ends the text, if
    that is known. `goes_on`: the phone went on after it. `cut`: the output has more tokens than are
    examined. `mistake`: the assumed mistake in decoding the tokens to text. `guessed`: bytes of the
    text were lost, and no such mistake is known.
    """

    def __init__(
        self,
        output: PhoneOutput,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        eos_ids: Sequence[int],
        limit: int,
        mistake: DecodingMistake | None = None,
    ):
        self.mistake = mistake
        self._tokenizer, self._eos_ids = tokenizer, set(eos_ids)
        if output.tokens is not None:
            self._text = None
            tokens = _without_prompt(output.tokens, list(prompt))
        else:
            self._text = self._stripped(output.text or "", prompt)
            tokens = continuation(tokenizer, self._text)
        ends = [place for place, token in enumerate(tokens) if token in self._eos_ids]
        kept = tokens[: ends[0] + 1] if ends else tokens
        self.goes_on = bool(ends) and len(tokens) > ends[0] + 1
        self.cut = len(kept) > limit
        self.first = kept[:limit]
        self.guessed = mistake is None and self._text is not None and LOST in self._text
        if self._text is not None and len(self.first) < len(tokens):
            self._text = self._text[: len(self._read(self.first))]

    def refit(self, before: Sequence[int], token: int) -> list[int] | None:
        """What is left, from `token` on, where the text goes on so after the tokens `before`; None
        if it does not, or tokens are known."""
        if self._text is None:
            return None
        read, text = self._read([*before, token]), self._text
        ends = token in self._eos_ids
        if ends and self._hide and (before[-1:] == [token] or len(read) == len(text)):
            return None  # unseen: maybe once within the text, where the phone did not stop at it
        if self._begins_with(read):
            return [token, *continuation(self._tokenizer, text[len(read) :])]
        last = read.translate(_PLAIN).startswith(text.translate(_PLAIN))
        return [token] if last and text else None

    def lost_after(self, before: Sequence[int]) -> bool:
        """Whether the text goes on after the tokens `before` with bytes that were lost."""
        if self._text is None or LOST not in self._text:
            return False
        return self._text[len(self._read(before)) :].lstrip().startswith(LOST)

    def _stripped(self, text: str, prompt: Sequence[int]) -> str:
        """The text without surrounding output of the app, and without the prompt if that is
        shown."""
        names = [
            token.content for token in self._tokenizer.model.get_added_tokens_decoder().values()
        ]
        self._hide = not any(name in text for name in names if name)
        text = text.replace("\r\n", "\n").strip()
        for echo in {self._tokenizer.decode(list(prompt), hide).strip() for hide in (True, False)}:
            if echo and text.startswith(echo) and text != echo:
                return text[len(echo) :].strip()
        return text

    def _begins_with(self, read: str) -> bool:
        text, read = (self._text or "").translate(_PLAIN), read.translate(_PLAIN)
        if self.mistake != CHARACTERS_LOST:
            return text.startswith(read)
        pairs = zip(text, read, strict=False)
        return len(read) <= len(text) and all(
            shown == meant or (shown == LOST and not meant.isascii()) for shown, meant in pairs
        )

    def _read(self, tokens: Sequence[int]) -> str:
        if self.mistake == ONE_BY_ONE:
            return "".join(self._text_of(token) for token in tokens).lstrip()
        return self._tokenizer.decode(list(tokens), self._hide).lstrip()

    def _text_of(self, token: int) -> str:
        """The token as it reads after another text, whose bytes are whole."""
        before = continuation(self._tokenizer, "a")
        read = self._tokenizer.decode([*before, token], self._hide)
        return read.removeprefix(self._tokenizer.decode(before, self._hide))


def continuation(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of `text` within a longer text: some tokenizers put a space before a text."""
    mark = tokenizer.encode("\n", add_special_tokens=False)
    both = tokenizer.encode(f"\n{text}", add_special_tokens=False)
    if mark and both[: len(mark)] == mark:
        return both[len(mark) :]
    return tokenizer.encode(text, add_special_tokens=False)


def _without_prompt(tokens: list[int], prompt: list[int]) -> list[int]:
    echoed = len(tokens) > len(prompt) and tokens[: len(prompt)] == prompt
    return tokens[len(prompt) :] if echoed else tokens
