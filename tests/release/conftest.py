"""The release of a tiny checkpoint, made once for all tests of this folder.

Its programs are those that other tests have exported already, for no target: `export` would take
half a minute (`make thorough` lets it).
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.made_once import made_once
from tests.support.models.tiny_checkpoint import FEW_SHAPES
from tests.support.models.tiny_models import float_tensors, write_meta
from tests.support.models.tiny_programs import shared_tiny, shared_tiny_xnnpack
from tests.support.release_speed import as_fast_each_time
from tests.support.releases import merged_spec

from quatrain.export import ExportOptions
from quatrain.release.release import make_release
from quatrain.release.tasks import functions
from quatrain.release.tasks.functions import Advance
from quatrain.stages import Stages

TEXT = " ".join(f"w{(7 * i) % 96}" for i in range(60))
SPEC = """
name = "tiny"
phones = ["pixel-8", "pixel-8-pro", "pixel-6"]
runtime = "1.3"
reference = "reference"
text = "text.txt"
tokens = 40
prompts = ["w5 w17 w40", "w22 w61"]
new-tokens = 6
max-kl = 5.0
"""


@pytest.fixture(scope="session")
def ready_made(shared: Path) -> Callable[..., dict]:
    """In place of `export`: the program that another test has exported from the checkpoint."""
    tiny, xnnpack = shared_tiny(shared), shared_tiny_xnnpack(shared)

    def copy(
        folder: Path, checkpoint: Path, options: ExportOptions, tokenizer: None, advance: Advance
    ) -> dict:
        program = xnnpack if options.backend == "xnnpack" else tiny.programs["8da4w"]
        shutil.copy(program, folder / "model.pte")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(program.with_name(f"{program.stem}.{name}"), folder / name)
        said = {"bytes": program.stat().st_size, "max_seq_len": 64}
        return said | {"kernels": {}, "notes": []}

    return copy


@pytest.fixture(autouse=True)
def not_exported_again(ready_made: Callable[..., dict]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(functions.FUNCTIONS, "export", ready_made)
        patch.setitem(functions.FUNCTIONS, "speed", as_fast_each_time)
        yield


@pytest.fixture(scope="session")
def tiny_release(shared: Path, ready_made: Callable[..., dict]) -> Path:
    """A folder with the `model`, the `reference` that it was made of, a release.toml and a text,
    in `out` the release, and in progress.json what its stages told."""

    def make(folder: Path) -> None:
        model = shutil.copytree(shared_tiny(shared).checkpoint, folder / "model")
        (model / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\nA model.\n")
        tensors = float_tensors(vocab_size=96, **FEW_SHAPES)
        write_meta(folder / "reference", tensors, vocab_size=96, max_seq_len=64, **FEW_SHAPES)
        (folder / "text.txt").write_text(TEXT)
        (folder / "release.toml").write_text(SPEC)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(functions.FUNCTIONS, "export", ready_made)
            patch.setitem(functions.FUNCTIONS, "speed", as_fast_each_time)
            heard: dict[str, list[float]] = {}
            stages = Stages(progress=lambda name, part, _: heard.setdefault(name, []).append(part))
            spec = merged_spec(folder / "release.toml", {})
            make_release(model, folder / "out", spec, stages=stages)
            (folder / "progress.json").write_text(json.dumps(heard))

    return made_once(shared / "release", make)
