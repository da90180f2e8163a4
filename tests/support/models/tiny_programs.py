"""A tiny int4 checkpoint with a tokenizer of words, and programs made from it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tests.support.made_once import made_once
from tests.support.models.tiny_checkpoint import FEW_SHAPES, write_checkpoint

from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import Program, open_program, write_program
from quatrain.program.edit.retarget import retarget

TEXT = " ".join(f"w{i}" for i in (5, 17, 40, 9, 22, 61, 33))
_VOCABULARY = 96


@dataclass(frozen=True)
class Tiny:
    """A checkpoint folder and a Vulkan program of each scheme made from it."""

    checkpoint: Path
    programs: dict[str, Path]

    def open(self, scheme: str) -> Program:
        return open_program(self.programs[scheme])


def shared_tiny(shared: Path) -> Tiny:
    """The one that all tests of a run share, in the folder `shared`."""
    return tiny_in(made_once(shared / "tiny", write_tiny))


def shared_tiny_xnnpack(shared: Path) -> Path:
    """The same checkpoint's XNNPACK program, 8da4w."""
    tiny = shared_tiny(shared)

    def export(folder: Path) -> None:
        export_checkpoint(tiny.checkpoint, folder / "model.pte", ExportOptions(backend="xnnpack"))

    return made_once(shared / "tiny-xnnpack", export) / "model.pte"


def tiny_in(folder: Path) -> Tiny:
    """What `write_tiny` wrote into `folder`."""
    programs = {scheme: folder / f"{scheme}.pte" for scheme in ("8da4w", "weight-only")}
    return Tiny(folder / "checkpoint", programs)


def write_tiny(folder: Path) -> None:
    """Write a checkpoint of two layers and its programs into `folder`."""
    tiny = tiny_in(folder)
    write_checkpoint(
        tiny.checkpoint, embedding="int4", n_layers=2, vocab_size=_VOCABULARY, **FEW_SHAPES
    )
    write_word_tokenizer(tiny.checkpoint)
    export_checkpoint(tiny.checkpoint, tiny.programs["8da4w"])
    # Retargeting takes no time; exporting again takes as long as all tests that read them.
    program = tiny.open("8da4w")
    retarget(program, "weight-only")
    write_program(program, tiny.programs["weight-only"])
    shutil.copy(tiny.checkpoint / "tokenizer.json", folder / "tokenizer.json")


def write_word_tokenizer(folder: Path, vocabulary: int = _VOCABULARY) -> None:
    """Token `i` is the word `wi`; a chat is what was said after `w1`."""
    words = {f"w{i}": i for i in range(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}w1 {{ message.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
