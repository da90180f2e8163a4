"""Writes a checkpoint's tensors one at a time, going on where an earlier attempt was stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

import torch

from quatrain.checkpoint.files.safetensors import encoded_header, encoded_tensor
from quatrain.quantize.methods import quantize_tensor
from quatrain.quantize.plan import Plan, Source, TensorPlan
from quatrain.quantize.quantized_tensor import RoundingError
from quatrain.quantize.resumable import ResumableFile
from quatrain.stages import Stages

# The mapped pages of what was read count as memory until the source is opened anew.
_BYTES_BETWEEN_OPENINGS = 128 << 20


def write_tensors(
    file: ResumableFile,
    plan: Plan,
    open_source: Callable[[], Source],
    errors: dict[str, RoundingError],
    stages: Stages,
) -> int:
    """Write what `file` lacks of the checkpoint; returns how many tensors were there already.

    Holds one tensor in memory at a time. `errors` gets what rounding changed, by the name of what
    was written, that of an earlier attempt too. `file` is closed where anything is raised.
    """
    errors |= {name: RoundingError(*error) for name, error in file.carried.items()}
    done = max(0, file.done - 1)  # the first step is the header
    try:
        if file.done == 0:
            file.append([encoded_header(plan.specs)], errors)
        source, since = open_source(), 0
        for part, tensors in groupby(plan.tensors[done:], lambda tensor: tensor.part):
            with stages(f"quantize {part}"), one_thread():
                for tensor in tensors:
                    if since >= _BYTES_BETWEEN_OPENINGS:
                        source, since = open_source(), 0
                    file.append(_written(source, tensor, errors), errors)
                    since += sum(spec.nbytes for spec in tensor.specs)
    except BaseException:
        file.leave(errors)
        raise
    return sum(len(tensor.specs) for tensor in plan.tensors[:done])


def _written(
    source: Source, tensor: TensorPlan, errors: dict[str, RoundingError]
) -> Iterator[memoryview]:
    """The bytes of the tensors, made when they are asked for, which nothing holds on to once they
    are written."""
    made = quantize_tensor(source, tensor)
    if made.error is not None:
        errors[tensor.target] = made.error
    for spec, content in zip(tensor.specs, made.tensors, strict=True):
        yield encoded_tensor(spec, content)


@contextmanager
def one_thread() -> Iterator[None]:
    """The work is thousands of operations of some microseconds on a cache-sized block. Handing
    each to two threads gains little, and where another program wants the second core it costs
    ten times over: 38 s instead of 4 for SmolLM2."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
