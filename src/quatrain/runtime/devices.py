"""The names of runtimes in options; does not import torch, for `--help`."""

from quatrain.errors import InputError

DEVICES = ("auto", "gpu", "reference", "executorch")


def parse_device(device: str) -> tuple[str, str | None]:
    """`device` without the adapter that it may name, and that. `InputError` for an unknown one."""
    kind, colon, adapter = device.partition(":")
    if kind not in DEVICES or (colon and (kind != "gpu" or not adapter)):
        expected = ", ".join(DEVICES)
        raise InputError(
            f"--device is {device!r}, expected one of {expected}, or gpu:NAME with the name or "
            "number of an adapter from `quatrain devices`"
        )
    return kind, adapter or None
