"""Keys in the bytes of a delegate are replaced one for one, or not at all."""

import pytest

from quatrain.errors import QuatrainError
from quatrain.export.xnnpack.delegate_keys import SCALES_PREFIX, constant_key, with_keys

OLD = [constant_key(b"weight"), constant_key(b"scales", SCALES_PREFIX)]
NEW = [constant_key(b"other"), constant_key(b"others", SCALES_PREFIX)]
DELEGATE = b"\0".join([b"head", OLD[0].encode(), OLD[1].encode(), b"tail"])


def test_each_key_is_replaced():
    changed = with_keys(DELEGATE, dict(zip(OLD, NEW, strict=True)))
    assert changed == b"\0".join([b"head", NEW[0].encode(), NEW[1].encode(), b"tail"])


def test_keys_that_change_places():
    one, other = (constant_key(data) for data in (b"1", b"2"))
    assert with_keys(f"{one} {other}".encode(), {one: other, other: one}) == (
        f"{other} {one}".encode()
    )


def test_nothing_to_replace():
    assert with_keys(DELEGATE, {}) == DELEGATE


@pytest.mark.parametrize("count", [0, 2])
def test_a_key_that_is_not_there_once(count):
    blob = b"head" + OLD[0].encode() * count
    with pytest.raises(QuatrainError, match=rf"found {count}, of 64 .* executorch 1\.\S+ is inst"):
        with_keys(blob, {OLD[0]: NEW[0]})


def test_a_key_of_another_length():
    with pytest.raises(QuatrainError, match="found 1, of 64 characters, expected one, of 70"):
        with_keys(DELEGATE, {OLD[0]: NEW[1]})
