"""Text to tokens and back, one token at a time, and the chat template."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from quatrain.errors import InputError
from quatrain.tokenizer import Tokenizer, copy_tokenizer_files

END = "<|end|>"


def write(folder, config=None, prefix=""):
    """A byte-level tokenizer of the 256 bytes and two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(["<|start|>", END])
    model.save(str(folder / f"{prefix}tokenizer.json"))
    if config is not None:
        (folder / f"{prefix}tokenizer_config.json").write_text(json.dumps(config))
    return folder / f"{prefix}tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.load(write(tmp_path_factory.mktemp("tokenizer")))


@settings(deadline=None)
@given(text=st.text().filter(lambda text: "<|" not in text))
def test_round_trip(tokenizer, text):
    """Of a text without special tokens, which are not decoded."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("wrong", [-1, 2**32])
def test_a_value_that_is_not_an_id_is_refused(tokenizer, wrong):
    with pytest.raises(InputError, match=f"^{wrong} is not a token id; .* are 0 to 257$"):
        tokenizer.decode([7, wrong])


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 257)))
def test_streamed_pieces_joined_are_the_whole_decoded(tokenizer, ids):
    """Over any bytes, UTF-8 or not."""
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids)


@settings(deadline=None)
@given(text=st.text(alphabet="aé漢🙂 "))
def test_a_character_comes_whole(tokenizer, text):
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert stream.finish() == ""


def test_half_a_character_is_shown_at_the_end(tokenizer):
    stream = tokenizer.stream()
    assert stream.push(tokenizer.encode("漢")[0]) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_the_config_beside_it(tmp_path):
    path = write(tmp_path, {"bos_token": "<|start|>", "eos_token": {"content": END}}, "model.")
    tokenizer = Tokenizer.load(path)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (256, [257])
    path.with_name("model.tokenizer_config.json").unlink()
    bare = Tokenizer.load(path)
    assert (bare.bos_id, bare.eos_ids, bare.chat_template) == (None, [], None)


CHAT = """\
{%- for message in messages %}
    {%- if message.role not in ('user', 'assistant') %}{{ raise_exception('no ' + message.role) }}
    {%- endif %}
{{ bos_token }}{{ message.role }}: {{ message.content }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
assistant:
{%- endif %}"""
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]


@pytest.mark.parametrize("kept", ["text", "named"])
def test_chat_template_renders_as_transformers_does(tmp_path, kept):
    from transformers import PreTrainedTokenizerFast

    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": CHAT}]
    config = {"bos_token": "<|start|>", "eos_token": END}
    path = write(tmp_path, config | {"chat_template": CHAT if kept == "text" else named})
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(path), **config)
    expected = theirs.apply_chat_template(
        MESSAGES, chat_template=CHAT, tokenize=False, add_generation_prompt=True
    )
    assert Tokenizer.load(path).apply_chat(MESSAGES) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        (CHAT, "chat template failed: no judge"),
        ("{{ ''.__class__.__mro__ }}", "chat template failed.*unsafe"),
        ("{% for %}", "chat template failed"),
        ("{{ messages.append(1) }}", "chat template failed.*unsafe"),
    ],
)
def test_a_template_that_fails_or_reaches_for_python(tmp_path, template, message):
    tokenizer = Tokenizer.load(write(tmp_path, {"chat_template": template}))
    with pytest.raises(InputError, match=message):
        tokenizer.apply_chat([{"role": "judge", "content": "hi"}])


def strips_its_token() -> tokenizers.Tokenizer:
    """Its token is nothing once it is normalized, over which the library breaks."""
    model = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    model.normalizer = normalizers.Strip(left=False)
    model.add_tokens([tokenizers.AddedToken("  ")])
    return model


@pytest.mark.parametrize(
    "model",
    [
        tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="<unk>")),
        tokenizers.Tokenizer(models.Unigram([("a", 0.0)])),
        strips_its_token(),
    ],
)
def test_a_text_that_it_has_no_tokens_for(tmp_path, model):
    model.save(str(file := tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"tokenizer.json: cannot tokenize 'é': .*--token"):
        Tokenizer.load(file).encode("é")


def bpe(prefix, *vocabulary):
    """A BPE with one merge, of a and b, for which the package panics: it reads beyond a token that
    is shorter than the prefix, or the third token where there is none."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    merged = {"type": "BPE", "vocab": ids, "merges": [["a", "b"]]}
    return json.dumps({"model": merged | {"continuing_subword_prefix": prefix}})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', "\udcff"])
def test_damaged_files(tmp_path, content):
    path = write(tmp_path, {})
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        Tokenizer.load(path)
    path = write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(InputError, match=r"tokenizer_config\.json: cannot be read"):
        Tokenizer.load(path)
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.load(tmp_path / "absent.json")


@pytest.mark.parametrize("content", [bpe("abc", "a", "b", "ab"), bpe(None, "a", "b")])
def test_merges_that_do_not_fit_the_vocabulary(tmp_path, content, capfd):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(InputError, match="a merge does not join two tokens into a third"):
        Tokenizer.load(path)
    assert capfd.readouterr().err == ""


def test_a_process_without_a_standard_error(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert Tokenizer.load(write(tmp_path)).encode("a")


def test_copied_files_carry_the_template_and_all_end_tokens(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    assert copy_tokenizer_files(source, target) == []
    write(source, {"eos_token": END})
    (source / "chat_template.jinja").write_text("{{ messages }}")
    assert len(copy_tokenizer_files(source, target, bos_id=256, eos_ids=[257, 3])) == 2
    tokenizer = Tokenizer.load(target / "tokenizer.json")
    assert tokenizer.eos_ids == [3, 257]
    assert tokenizer.chat_template == "{{ messages }}"


def test_a_byte_order_mark_is_no_part_of_a_template(tmp_path):
    """Editors of Windows write one, and it would be the first character of each prompt."""
    write(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf{{ messages[0].content }}")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.apply_chat([{"role": "user", "content": "hi"}]) == "hi"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "chat_template.jinja",
            b"\xff\xfe",
            r"jinja: cannot be read as UTF-8.*; download it again",
        ),
        ("chat_template.jinja", POINTER, r"chat_template\.jinja: is a Git LFS pointer"),
        ("tokenizer.json", POINTER, r"tokenizer\.json: is a Git LFS pointer"),
        ("tokenizer_config.json", b'{"a": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_texts_that_are_not_unicode(tmp_path, name, content, message):
    (tmp_path / "out").mkdir()
    write(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        copy_tokenizer_files(tmp_path, tmp_path / "out")
