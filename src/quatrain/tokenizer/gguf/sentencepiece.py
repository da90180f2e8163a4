"""SentencePiece BPE (Llama 2, Mistral, Phi-3, Gemma up to 4) from a GGUF file, or from its own
(`quatrain.tokenizer.sentencepiece_model`), as a `tokenizers.Tokenizer`.

SentencePiece knows no merges: it joins, over and over, those two neighbours whose joint piece has
the best score. `tokenizers` wants pairs in order. They are all the ways to put a piece together
from two others, the best-scored piece's first. Gemma 4's files state those pairs.
"""

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers

from quatrain.errors import InputError
from quatrain.tokenizer.gguf.vocabulary import (
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    GgufVocabulary,
    mark_special,
)

WITH_MERGES = "gemma4"  # the tokenizer.ggml.model of files that state merges
SPACE = "▁"  # the character for a space in a piece
_BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
# Phi-3's tokenizer.json drops white space after every other special token, llama.cpp with it; the
# files say nothing of it. A chat template writes a line break there.
_PHI3_KEEPS_SPACES_AFTER = {"<unk>", "<s>", "<|endoftext|>"}


def sentencepiece_tokenizer(vocabulary: GgufVocabulary) -> tuple[tokenizers.Tokenizer, bool]:
    """The tokenizer, and True: these families are trained with a beginning-of-text token.

    What its model does to a text before it is cut comes with it: composing characters, taking away
    spaces, putting one before it. Raises `InputError` if scores, types, the bytes or the unknown
    token are missing.
    """
    types = vocabulary.numbers("token_type")
    tokens = [
        # They are found in the text as it came, where a space is a space.
        token.replace(SPACE, " ") if kind == USER_DEFINED else token
        for token, kind in zip(vocabulary.tokens, types, strict=True)
    ]
    tokenizer = tokenizers.Tokenizer(_model(vocabulary, tokens, types))
    steps = _normalizers(vocabulary)
    tokenizer.normalizer = steps[0] if len(steps) == 1 else normalizers.Sequence(steps)
    tokenizer.decoder = spaces_back(strip=_has_prefix(vocabulary))
    phi3 = vocabulary.metadata.get("general.architecture") == "phi3"
    mark_special(tokenizer, tokens, types, _PHI3_KEEPS_SPACES_AFTER if phi3 else None)
    return tokenizer, True


def _model(vocabulary: GgufVocabulary, tokens: list[str], types: np.ndarray) -> models.BPE:
    byte_fallback = vocabulary.flag("byte_fallback", True)
    if byte_fallback:
        _require_bytes(vocabulary, tokens)
    # Only these come about by joining: the others are found whole before it, or are bytes.
    pieces = {
        token: index
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == NORMAL and token not in _BYTES
    }
    _name_characters(tokens, pieces)
    ids = vocabulary.ids(tokens)
    merges = (
        vocabulary.merges(ids)
        if vocabulary.get("model") == WITH_MERGES
        else _merges(pieces, vocabulary.numbers("scores"))
    )
    return models.BPE(
        vocab=ids,
        merges=merges,
        unk_token=tokens[_unknown_id(vocabulary, types)],
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )


def _normalizers(vocabulary: GgufVocabulary) -> list[normalizers.Normalizer]:
    steps = _composing(vocabulary)
    if vocabulary.flag("remove_extra_whitespaces", False):
        steps += [
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    leading_is_prefix = vocabulary.flag("leading_space_is_prefix", False)
    return steps + space_steps(_has_prefix(vocabulary), leading_is_prefix)


def _composing(vocabulary: GgufVocabulary) -> list[normalizers.Normalizer]:
    """What composes characters, by SentencePiece's table of them, if there is one."""
    table = vocabulary.get("precompiled_charsmap")
    try:
        characters = b"" if table is None else memoryview(table).tobytes()
        return [normalizers.Precompiled(characters)] if characters else []
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(
            f"{vocabulary.source}: its table of characters (precompiled_charsmap) cannot be read: "
            f"{error}; the file is damaged, download it again"
        ) from error


def _has_prefix(vocabulary: GgufVocabulary) -> bool:
    """Whether a space is put before a text."""
    return vocabulary.flag("add_space_prefix", vocabulary.get("model") != WITH_MERGES)


def space_steps(prefix: bool, leading_is_prefix: bool) -> list[normalizers.Normalizer]:
    """What writes spaces as pieces have them, puts one before a text where `prefix`, and no second
    one where `leading_is_prefix`."""
    steps: list[normalizers.Normalizer] = [normalizers.Prepend(SPACE)] if prefix else []
    steps.append(normalizers.Replace(" ", SPACE))
    if prefix and leading_is_prefix:
        # At the beginning, where ExecuTorch's C++ finds \A again behind what it has replaced.
        steps.append(normalizers.Replace(Regex(rf"(?<![\s\S]){SPACE}{SPACE}"), SPACE))
    return steps


def spaces_back(strip: bool) -> decoders.Decoder:
    """What makes text of pieces; `strip`: without the space that was put before it."""
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)


def _require_bytes(vocabulary: GgufVocabulary, tokens: list[str]) -> None:
    missing = sorted(_BYTES.keys() - set(tokens))
    if missing:
        raise InputError(
            f"{vocabulary.source}: tokenizer.ggml.tokens lacks {len(missing)} of the 256 bytes, "
            f"the first of them {missing[0]}, so other characters could not be tokenized. The "
            "file is damaged"
        )


def _unknown_id(vocabulary: GgufVocabulary, types: np.ndarray) -> int:
    stated, typed = vocabulary.get("unknown_token_id"), np.flatnonzero(types == UNKNOWN)
    if stated is None and not len(typed):
        raise InputError(
            f"{vocabulary.source}: has no unknown token, expected tokenizer.ggml.unknown_token_id "
            f"or one of type {UNKNOWN}; the file is damaged"
        )
    return int(typed[0] if stated is None else stated)


def _name_characters(tokens: list[str], pieces: dict[str, int]) -> None:
    """Make each ASCII character that pieces contain, and that is none itself, one in its byte's
    place.

    Gemma has pieces of several tabs, and a single tab only as a byte. SentencePiece joins what is
    no piece itself; `tokenizers` does not.
    """
    wanted = {character for piece in pieces for character in piece}.difference(tokens)
    for index, token in enumerate(tokens):
        character = chr(_BYTES.get(token, 128))
        if character in wanted and character.isascii():
            tokens[index] = character
            pieces[character] = index


def _merges(pieces: dict[str, int], scores: np.ndarray) -> list[tuple[str, str]]:
    score = scores.astype(np.float64).tolist()
    ranked = sorted(pieces.items(), key=lambda entry: (-score[entry[1]], entry[1]))
    return [
        (piece[:cut], piece[cut:])
        for piece, _ in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
