"""The keys by which an XNNPACK delegate finds its constants, in the bytes of the delegate.

Private to ExecuTorch, and taken from `backends/xnnpack/operators/node_visitor.py` in it: a
constant's key is the SHA-256 of its bytes in hexadecimal, that of a weight's scales with a prefix.
The delegate's flatbuffer holds the keys as text, once each, so that one delegate serves for all
linears of its shape: with other keys of the same length every offset in it stays right. A
serializer that made keys or placed them otherwise is noticed here, before anything is written.
"""

import hashlib
import re

from quatrain.executorch_wheel import changed

SCALES_PREFIX = "scale_"
DIGEST_LENGTH = 64  # characters


def constant_key(data: bytes, prefix: str = "") -> str:
    """The key of a constant with those bytes."""
    return prefix + hashlib.sha256(data).hexdigest()


def keys_in(delegate: bytes) -> list[str]:
    """The key of each constant of a delegate with those bytes."""
    found = re.findall(rb"(?:%b)?[0-9a-f]{%d}" % (SCALES_PREFIX.encode(), DIGEST_LENGTH), delegate)
    return [key.decode() for key in found]


def with_keys(delegate: bytes, keys: dict[str, str]) -> bytes:
    """The bytes of `delegate` with each key of `keys`, which it holds once, replaced by its value.

    Raises `QuatrainError` if it does not hold one exactly once, or lengths differ.
    """
    for old, new in keys.items():
        count = delegate.count(old.encode())
        if count != 1 or len(old) != len(new):
            what = f"the key {old} in an XNNPACK delegate, to become {new}"
            expected = f"one, of {len(new)} characters"
            raise changed("executorch", what, f"{count}, of {len(old)} characters", expected)
    if not keys:
        return delegate
    # In one pass, so that a new key is never taken for another's old one.
    found = re.compile(b"|".join(re.escape(old.encode()) for old in keys))
    return found.sub(lambda match: keys[match[0].decode()].encode(), delegate)
