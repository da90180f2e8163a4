"""The devices on which a program is verified."""

from quatrain.arithmetic import Arithmetic
from quatrain.errors import InputError
from quatrain.program import Program
from quatrain.runtime.devices import parse_device
from quatrain.runtime.load import is_vulkan, load_runner
from quatrain.runtime.runner import Runner
from quatrain.runtime.unavailable import RuntimeUnavailable
from quatrain.runtime.wgpu.adapters import list_adapters


def open_devices(
    asked: tuple[str, ...], program: Program, emulate: str | None, arithmetic: Arithmetic
) -> dict[str, Runner | None]:
    """The runner on each device of `asked`, with all that can run `program` here for "auto".

    One that cannot run it is thus refused before all else. None for the reference, which holds
    the weights dequantized: it is loaded when it is its turn.
    """
    found: dict[str, Runner | None] = {}
    for device in asked:
        if parse_device(device)[0] == "auto":
            found |= _open_all(program, emulate, arithmetic)
        elif device == "reference":
            found[device] = None
        elif device not in found:
            found[device] = load_runner(program, device, emulate, arithmetic=arithmetic)
    if not found:
        raise InputError("no --device is given; leave it out for all that run the program")
    return found


def _open_all(
    program: Program, emulate: str | None, arithmetic: Arithmetic
) -> dict[str, Runner | None]:
    if not is_vulkan(program):
        return {"executorch": load_runner(program, "executorch", emulate, arithmetic=arithmetic)}
    if not list_adapters():
        return {"reference": None}
    try:
        return {
            "reference": None,
            "gpu": load_runner(program, "gpu", emulate, arithmetic=arithmetic),
        }
    except RuntimeUnavailable:  # an operator without a kernel
        return {"reference": None}
