"""Mistral's tokenizer.json with a wrong pattern of words, and what asks for the right one."""

import json

import pytest
import tokenizers
from tests.support.models import tiny_models as tiny
from tokenizers import Regex, decoders, models, pre_tokenizers

from quatrain.checkpoint.open import open_checkpoint
from quatrain.checkpoint.written_tokenizer import write_tokenizer_of
from quatrain.tokenizer import Tokenizer, copy_tokenizer_files
from quatrain.tokenizer.gguf.byte_level import LLAMA3_WORDS, TEKKEN_WORDS

TEXTS = ("ab 12345", "XaB ABab 12", "don't", "a/b\n/c")


@pytest.fixture(scope="module")
def wrong() -> str:
    """With as many tokens as only Tekken's vocabularies have."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, "12", "Xa", "aB", *(f"<{index}>" for index in range(100_000))]
    merges = [("1", "2"), ("X", "a"), ("a", "B")]
    model = tokenizers.Tokenizer(
        models.BPE({token: index for index, token in enumerate(tokens)}, merges)
    )
    words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
    letters_of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([words, letters_of_bytes])
    model.decoder = decoders.ByteLevel()
    return model.to_str()


def write(folder, file, asked, **config):
    (folder / "tokenizer.json").write_text(file)
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral", **config}))
    stated = {} if asked is None else {"fix_mistral_regex": asked}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return folder


@pytest.mark.parametrize(
    ("asked", "config", "fixed"),
    [
        (True, {"transformers_version": "4.57.1"}, True),
        (True, {"transformers_version": "5.0.0.dev0", "model_type": "mistral3"}, True),
        (True, {"transformers_version": "5.1.0"}, False),
        (True, {"transformers_version": "4.57.1", "model_type": "llama"}, False),
        (None, {}, False),
    ],
)
def test_what_asks_for_the_right_words(wrong, tmp_path, asked, config, fixed):
    from transformers import AutoTokenizer

    write(tmp_path, wrong, asked, **config)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "out").mkdir()
    copied = Tokenizer.load(copy_tokenizer_files(tmp_path, tmp_path / "out")[0])
    plain = tokenizers.Tokenizer.from_str(wrong)
    for text in TEXTS:
        assert copied.encode(text) == theirs.encode(text)
    assert fixed is (copied.encode(TEXTS[0]) != plain.encode(TEXTS[0]).ids)


def test_a_file_with_the_wrong_words_is_told(wrong, tmp_path):
    checkpoint = open_checkpoint(tiny.write_checkpoint(tmp_path / "checkpoint"))

    def told(file, asked):
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "out").mkdir(exist_ok=True)
        given = write(tmp_path / "source", file, asked) / "tokenizer.json"
        notes = write_tokenizer_of(checkpoint, tmp_path / "out", given).notes
        return any("tekken.json as --tokenizer, or set fix_mistral_regex" in note for note in notes)

    assert told(wrong, None)
    assert not told(wrong, True)
    right = tokenizers.Tokenizer.from_str(wrong)
    steps = right.pre_tokenizer
    steps[0] = pre_tokenizers.Split(Regex(TEKKEN_WORDS), "isolated")
    right.pre_tokenizer = steps
    assert not told(right.to_str(), None)
