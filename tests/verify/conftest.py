"""A tiny int4 checkpoint, and its programs, made once for all tests of this folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import save_file

from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import Program, open_program
from quatrain.program.edit.retarget import retarget

PARAMS = {
    "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 96, "hidden_dim": 96,
    "norm_eps": 1e-5, "rope_theta": 10000.0, "max_seq_len": 64,
    "quantization_args": {"group_size": 32},
}  # fmt: skip
TEXT = " ".join(f"w{i}" for i in (5, 17, 40, 9, 22, 61, 33))


@dataclass(frozen=True)
class Tiny:
    """A checkpoint folder and a program of each scheme made from it."""

    checkpoint: Path
    programs: dict[str, Path]

    def open(self, scheme: str) -> Program:
        return open_program(self.programs[scheme])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "params.json").write_text(json.dumps(PARAMS))
    save_file(_tensors(), checkpoint / "model.safetensors")
    words = {f"w{i}": i for i in range(96)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    template = "{% for message in messages %}w1 {{ message.content }}{% endfor %}"
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    programs = {scheme: folder / f"{scheme}.pte" for scheme in ("8da4w", "weight-only")}
    export_checkpoint(checkpoint, programs["8da4w"], ExportOptions())
    # Retargeting takes no time; exporting again takes as long as all tests here.
    program = open_program(programs["8da4w"])
    retarget(program, "weight-only")
    program.write(programs["weight-only"])
    shutil.copy(checkpoint / "tokenizer.json", folder / "tokenizer.json")
    return Tiny(checkpoint, programs)


@pytest.fixture(scope="session")
def tiny_xnnpack(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint's XNNPACK program, 8da4w."""
    program = tmp_path_factory.mktemp("xnnpack") / "model.pte"
    export_checkpoint(tiny.checkpoint, program, ExportOptions(backend="xnnpack"))
    return program


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def int4(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        weight = torch.randint(-8, 8, (rows, columns), dtype=torch.int8, generator=generator)
        scales = 0.01 + 0.03 * torch.rand(rows, columns // 32, generator=generator)
        return {f"{name}.weight": weight, f"{name}.scales": scales}

    dim, hidden, keys = PARAMS["dim"], PARAMS["hidden_dim"], 32
    tensors = {"norm.weight": 0.5 + torch.rand(dim, generator=generator)}
    tensors |= int4("tok_embeddings", PARAMS["vocab_size"], dim)
    tensors |= int4("output", PARAMS["vocab_size"], dim)
    for layer in range(PARAMS["n_layers"]):
        path = f"layers.{layer}"
        for name, rows, columns in (
            ("attention.wq", dim, dim), ("attention.wk", keys, dim), ("attention.wv", keys, dim),
            ("attention.wo", dim, dim), ("feed_forward.w1", hidden, dim),
            ("feed_forward.w2", dim, hidden), ("feed_forward.w3", hidden, dim),
        ):  # fmt: skip
            tensors |= int4(f"{path}.{name}", rows, columns)
        for norm in ("attention_norm", "ffn_norm"):
            tensors[f"{path}.{norm}.weight"] = 0.5 + torch.rand(dim, generator=generator)
    return tensors
