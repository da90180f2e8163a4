"""A template is kept under a key that says all that it depends on."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from tests.support.models.tiny_checkpoint import write_checkpoint

import quatrain
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export.template import key as template_key
from quatrain.export.template.key import code_digest, module_descriptions
from quatrain.int4 import Scheme

PACKAGE = Path(quatrain.__file__).parent
# What the compiler's way imports besides, which decides no byte of a template: files to tensors,
# and what shows, words or keeps an export.
NO_BYTES = (
    "checkpoint", "tokenizer", "quantize", "targets", "atomic_files", "errors", "json_files",
    "lazy_names", "quiet", "short_lists", "stages",
)  # fmt: skip


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of our code."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(PACKAGE, tmp_path / "quatrain", ignore=ignored)


def _covered(package: Path) -> list[Path]:
    places = [package / place for place in template_key._CODE]
    return [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]


def test_a_byte_of_any_source_changes_the_key(package):
    digests = {code_digest(package)}
    sources = [file for file in _covered(package) if file.suffix == ".py"]
    for file in sources:
        content = file.read_bytes()
        file.write_bytes(content + b"#")
        digests.add(code_digest(package))
        file.write_bytes(content)
    assert len(digests) == 1 + len(sources)
    names = {file.relative_to(package).as_posix() for file in sources}
    assert {
        "export/vulkan/packed_layers.py", "export/xnnpack/lowering.py",
        "export/template/template.py", "program/writer.py", "program/edit/retarget.py",
        "linear/int4.py", "backbone/model.py", "transform/pre_quantization.py", "int4.py",
    } <= names  # fmt: skip


def test_the_name_of_a_source_counts(package):
    before = code_digest(package)
    (package / "program/writer.py").rename(package / "program/writes.py")
    assert code_digest(package) != before


def _imported_anew(names: list[str], monkeypatch) -> set[str]:
    """All modules of ours that importing those brings, where none has been imported."""
    with monkeypatch.context() as patch:
        for name in list(sys.modules):
            if name.partition(".")[0] == "quatrain":
                patch.delitem(sys.modules, name)
        for name in names:
            importlib.import_module(name)
        found = {name for name in sys.modules if name.startswith("quatrain.")}
        for name in ["quatrain", *found]:
            del sys.modules[name]
    return found


def test_all_that_lowers_and_writes_a_template_is_covered(monkeypatch):
    """Whatever of ours the compiler's way imports is in the key, or said not to decide bytes."""
    names = ["quatrain.export.vulkan.lowering", "quatrain.export.xnnpack.lowering"]
    known = {*NO_BYTES, *(place.removesuffix(".py") for place in template_key._CODE)}
    found = _imported_anew(names, monkeypatch)
    assert {*names, "quatrain.program.writer"} <= found
    assert {name.split(".")[1] for name in found} <= known


def _backbone(folder, scheme, **params):
    opened = open_checkpoint(write_checkpoint(folder, **params))
    return build_backbone(opened.config, opened.tensors, scheme)


def _key(backbone, settings=None):
    return template_key.template_key(backbone, Scheme.DYNAMIC_INT8, settings or {})


def test_both_schemes_and_other_weights_have_one_key(tmp_path):
    keys = {
        _key(_backbone(tmp_path / scheme, scheme, seed=seed)) for seed, scheme in enumerate(Scheme)
    }
    assert len(keys) == 1


def test_what_changes_a_template_changes_its_key(tmp_path):
    different = ({}, {"norm_eps": 1e-6}, {"embedding": "int4"}, {"hidden_dim": 128},
                 {"act_fn": "gelu"}, {"use_hf_rope": True})  # fmt: skip
    backbones = [
        _backbone(tmp_path / str(index), Scheme.DYNAMIC_INT8, **params)
        for index, params in enumerate(different)
    ]
    keys = [_key(backbone) for backbone in backbones]
    keys.append(_key(backbones[0], {"backend": "vulkan"}))
    backbones[0].layers[1].ffn_norm.eps = 1e-3  # of one module alone, which no config says
    keys.append(_key(backbones[0]))
    assert len(set(keys)) == len(different) + 2


def test_int4_linears_are_described_as_what_they_are_lowered_as(tmp_path):
    backbone = _backbone(tmp_path, Scheme.WEIGHT_ONLY)
    for scheme in Scheme:
        rows = {path: (kind, facts) for path, kind, facts in module_descriptions(backbone, scheme)}
        kind, facts = rows["layers.2.attention.wq"]
        assert kind == f"{scheme} linear"
        assert (facts["in_features"], facts["out_features"], facts["groupsize"]) == (64, 64, 32)
    assert rows["layers.0.ffn_norm"][0] == "RMSNorm"
