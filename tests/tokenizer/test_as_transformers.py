"""What is read of a folder, and written beside a program, gives the ids of AutoTokenizer."""

import json
import tempfile
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer, copy_tokenizer_files

TEXTS = ("<s>", "</s>", "<pad>", "<a>", "<|im_end|>", "the", "t", "<b> ", "<mask>")
FLAGS = ("lstrip", "rstrip", "normalized", "single_word")


def as_object(marked: bool) -> st.SearchStrategy[dict]:
    """An added token as the files hold it, `marked` as transformers marks one in a config."""
    flags = {flag: st.booleans() for flag in FLAGS}
    mark = {"__type": st.just("AddedToken")} if marked else {}
    stated = {"content": st.sampled_from(TEXTS)} | flags | mark
    return st.fixed_dictionaries(stated, optional={"special": st.booleans()})


TOKEN = st.sampled_from(TEXTS) | as_object(marked=True)
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "image_token")
CONFIGS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(NAMED, TOKEN)
    | {
        "added_tokens_decoder": st.dictionaries(
            st.integers(0, 300).map(str), as_object(marked=False), max_size=4
        ),
        "additional_special_tokens": st.lists(TOKEN, max_size=3),
        "extra_special_tokens": st.lists(TOKEN, max_size=3)
        | st.dictionaries(st.sampled_from(("x_token", "y_token")), st.sampled_from(TEXTS)),
        "add_bos_token": st.booleans(),
        "add_eos_token": st.booleans(),
        "add_prefix_space": st.booleans(),
        "split_special_tokens": st.booleans(),
        "clean_up_tokenization_spaces": st.booleans(),
    },
)
SPECIAL = st.fixed_dictionaries(
    {},
    optional={name: st.sampled_from(TEXTS) | as_object(marked=False) for name in NAMED[:4]}
    | {"additional_special_tokens": st.lists(st.sampled_from(TEXTS), max_size=3)},
)
# An id is one token's: of two that state it transformers keeps one here, the other there.
ADDED = st.dictionaries(st.sampled_from(TEXTS), st.integers(256, 300), max_size=3).filter(
    lambda added: len(set(added.values())) == len(added)
)
PROMPTS = st.lists(
    st.sampled_from((*TEXTS, " ", "the quick", "\n", "é")) | st.text(max_size=4), max_size=8
).map("".join)


def write_tokenizer(folder: Path, added: list[str], padded: bool, begins: bool) -> None:
    """A byte-level tokenizer with one merge, as some script may have left it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: index for index, char in enumerate([*alphabet, "th"])}
    model = tokenizers.Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(added)
    if begins:
        model.add_special_tokens(["<s>"])
        begin = ("<s>", model.token_to_id("<s>"))
        model.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[begin])
    if padded:
        model.enable_padding(length=12, pad_id=3, pad_token="t")
        model.enable_truncation(max_length=3)
    model.save(str(folder / "tokenizer.json"))


# An object of a config is not read yet where added_tokens.json's special tokens are told.
OBJECT = {"__type": "AddedToken", "content": "</s>", "special": False, "normalized": False}

# A token that is special once stays so.
TWICE = {
    "added_tokens_decoder": {},
    "additional_special_tokens": ["the", OBJECT | {"content": "the"}],
    "extra_special_tokens": [],
    "split_special_tokens": True,
}

# No names count as none stated, where the older name stands beside them.
NAMELESS = {"extra_special_tokens": {}, "additional_special_tokens": ["<s>"]}


# Files of 2023 mark a token so, and say nothing of "special".
UNSAID = {"additional_special_tokens": [{"__type": "AddedToken", "content": "<a>"}]}


@settings(deadline=None, max_examples=60)
@example([], False, False, TWICE, None, None, ["the"])
@example([], False, False, {"extra_special_tokens": [OBJECT]}, None, {"</s>": 256}, ["</s>"])
@example([], False, False, NAMELESS, {"additional_special_tokens": ["<mask>"]}, None, ["<mask>"])
@example([], False, False, NAMELESS, None, {"<s>": 256}, ["<s>"])
@example([], False, False, {"image_token": "t"}, None, {"the": 256, "t": 257}, ["the"])
@example([], False, False, UNSAID, None, None, ["<a>t"])
@given(
    added=st.lists(st.sampled_from(TEXTS), max_size=3),
    padded=st.booleans(),
    begins=st.booleans(),
    config=CONFIGS,
    special=st.none() | SPECIAL,
    named=st.none() | ADDED,
    prompts=st.lists(PROMPTS, min_size=3, max_size=6),
)
def test_any_folder(added, padded, begins, config, special, named, prompts):
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        write_tokenizer(folder, added, padded, begins)
        files = {
            "config.json": {"model_type": "llama"},
            "tokenizer_config.json": config,
            "special_tokens_map.json": special,
            "added_tokens.json": named,
        }
        for name, content in files.items():
            if content is not None:
                (folder / name).write_text(json.dumps(content))
        theirs = AutoTokenizer.from_pretrained(folder)
        (folder / "out").mkdir()
        copy_tokenizer_files(folder, folder / "out")
        ours = Tokenizer.load(folder / "tokenizer.json")
        copied = Tokenizer.load(folder / "out" / "tokenizer.json")
        alone = tokenizers.Tokenizer.from_file(str(folder / "out" / "tokenizer.json"))
    for prompt in prompts:
        for specials in (True, False):
            expected = theirs.encode(prompt, add_special_tokens=specials)
            assert ours.encode(prompt, specials) == expected
            assert copied.encode(prompt, specials) == expected
            if not config.get("split_special_tokens"):
                assert alone.encode(prompt, add_special_tokens=specials).ids == expected
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("index", [[1], {"id": 1}, "first", None])
def test_an_added_token_with_an_invalid_id(tmp_path, index):
    write_tokenizer(tmp_path, [], padded=False, begins=False)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<a>": index}))
    with pytest.raises(InputError, match="its added tokens are not tokens by id"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    # Where the decoder is stated it counts, and this file is not read.
    (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": {}}')
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode("the")
