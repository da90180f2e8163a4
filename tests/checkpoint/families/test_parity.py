"""Every row of the table against its model in transformers, by each of its readings."""

import pytest
from tests.support.formats.quantized_models import METHODS
from tests.support.models.families import ROWS
from tests.support.models.family_errors import float_error, gguf_error, meta_error, quantized_error
from tests.support.models.peers import TOLERANCE

from quatrain.checkpoint.families import FAMILIES
from quatrain.checkpoint.families.family import Family


@pytest.mark.parametrize("name", ROWS)
def test_hugging_face_folder(name, tmp_path):
    assert float_error(name, tmp_path) < TOLERANCE


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.gguf])
def test_gguf_file(name, tmp_path):
    assert gguf_error(name, tmp_path) < TOLERANCE


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.meta])
def test_meta_folder(name, tmp_path):
    assert meta_error(name, tmp_path) < TOLERANCE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.quantized])
def test_quantized_folder(name, method, tmp_path):
    assert quantized_error(name, method, tmp_path) < TOLERANCE


def model_type(family: Family) -> str:
    return family.hugging_face.model_type


@pytest.mark.parametrize("family", FAMILIES, ids=model_type)
def test_the_table_has_every_reading_of(family):
    rows = [row for row in ROWS.values() if row.model_type == model_type(family)]
    assert any(row.quantized for row in rows), "no row with quantized=True"
    assert any(row.fuzzed for row in rows), "no row with fuzzed=True"
    assert any(row.meta for row in rows) or family.meta is None, "no row with meta"
    if family.gguf is not None:
        architectures = {row.gguf.architecture for row in rows if row.gguf}
        assert architectures == {family.gguf.architecture}, "no row with gguf, or another's"


def test_no_two_families_read_the_same_file():
    readings = [
        [model_type(family) for family in FAMILIES],
        [family.gguf.architecture for family in FAMILIES if family.gguf],
        [mark for family in FAMILIES if family.meta for mark in family.meta.marks or {""}],
    ]
    for known in readings:
        assert len(known) == len(set(known))
