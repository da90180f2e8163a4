"""What quantizing and converting hold in memory: one tensor, whatever the source's size."""

import subprocess
import sys

import pytest
import torch
from tests.support.formats import gguf_files as ggufs
from tests.support.models import tiny_models as tiny

MEMORY = """
import sys
from pathlib import Path
from quatrain.quantize.pipeline import convert_model
from quatrain.stages import peak_rss_bytes
import quatrain.checkpoint.hugging_face.quantized, torch
before = peak_rss_bytes()
report = convert_model(Path(sys.argv[1]), Path(sys.argv[2]), **OPTIONS)
print(report.peak_rss_bytes - before, report.bytes_out)
"""


def grown_and_written(source, output, write="convert_model"):
    """Bytes that a process of its own grew by, and bytes that it wrote."""
    options = {"method": "rtn"} if write == "quantize_model" else {}
    code = MEMORY.replace("convert_model", write).replace("OPTIONS", str(options))
    done = subprocess.run(
        [sys.executable, "-c", code, source, output],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, written = map(int, done.stdout.split())
    return grown, written


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_memory_does_not_grow_with_the_source(tmp_path, form, monkeypatch):
    """A 340 MB checkpoint: less than it is held at any time."""
    rows, columns, layers = 4096, 2048, 8
    params = tiny.PARAMS | {"dim": columns, "hidden_dim": rows, "n_layers": layers}
    params |= {"n_heads": 16, "n_kv_heads": 2, "head_dim": 128, "vocab_size": 64}
    shapes = {
        "attention.wq": (2048, columns),
        "attention.wk": (256, columns),
        "attention.wv": (256, columns),
        "attention.wo": (columns, 2048),
        "feed_forward.w1": (rows, columns),
        "feed_forward.w2": (columns, rows),
        "feed_forward.w3": (rows, columns),
    }
    tensors = {
        "tok_embeddings.weight": torch.zeros(64, columns),
        "norm.weight": torch.ones(columns),
    }
    for layer in range(layers):
        for name in ("attention_norm", "ffn_norm"):
            tensors[f"layers.{layer}.{name}.weight"] = torch.ones(columns)
        for name, shape in shapes.items():
            tensors[f"layers.{layer}.{name}.weight"] = torch.ones(shape, dtype=torch.int8)
            tensors[f"layers.{layer}.{name}.scales"] = torch.ones(shape[0], shape[1] // 32)
    file = "m.pth" if form == "pth" else "model.safetensors"
    source = tiny.write_checkpoint(tmp_path / "in", tensors, file, **params)
    grown, written = grown_and_written(source, tmp_path / "out")
    assert written > 300e6
    assert grown < 250e6, f"grew by {grown / 1e6:.0f} MB for {written / 1e6:.0f} MB"


@pytest.mark.parametrize(("write", "kind"), [("convert_model", "Q4_0"), ("quantize_model", "Q8_0")])
def test_a_gguf_table_is_never_in_memory_as_floats(tmp_path, write, kind):
    """33.5 million elements, twice: 134 MB in float32, 34 MB as the integers that are written."""
    tensors = tiny.float_tensors(tied=True)
    table = torch.randn(1 << 12, 64, generator=torch.Generator().manual_seed(0))
    tensors["tok_embeddings.weight"] = table.repeat(1 << 7, 1)
    source = ggufs.write_gguf(tmp_path / "m.gguf", tensors, kind=kind)
    grown, written = grown_and_written(source, tmp_path / "out", write)
    assert written > 67e6
    assert grown < 160e6, f"grew by {grown / 1e6:.0f} MB"
