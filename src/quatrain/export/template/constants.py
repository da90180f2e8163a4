"""The constants of a program in the form that its kernels read, from a backbone's tensors.

A `ConstantSource` identifies a constant: a tensor of the backbone and the form in which it is
stored.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.checkpoint.files.memory_map import was_read
from quatrain.errors import QuatrainError
from quatrain.linear.packing import group_sums, pack_int4, pack_int4_for_vulkan
from quatrain.program import Constant, Program, Tensor
from quatrain.program.edit.constant_source import ConstantSource, Form

PACKING = "pack the weights"  # the stage of an export that a large model takes longest for

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
}


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor of `module` by the name that sources of constants use."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def source_of(module: nn.Module, tensor: str) -> ConstantSource:
    """The source of the tensor of that name below `module`.

    A module that holds tensors in another form than the backbone's lists them in `sources`: its
    tensor -> the source, a tensor of the module that it replaced.
    """
    path, _, own = tensor.rpartition(".")
    sources = getattr(module.get_submodule(path), "sources", {})
    return sources.get(own, ConstantSource(Form.PLAIN, own)).below(path)


def constant_bytes(
    form: Form, tensor: torch.Tensor, like: Tensor, group_size: int | None = None
) -> bytes:
    """The bytes of a constant of shape and dtype `like`.

    PACKED: int4 weight [N, K] -> uint8 [N padded to 4, K/2]; SUMS of each group of one -> int32
    [K/group, N padded to 4]; TRANSPOSED: scales [N, groups] -> [groups, N]; PLAIN: the unchanged
    tensor. Rows are padded with zeros to the width of `like`, and floating-point values clamped to
    its dtype, as ExecuTorch's Vulkan lowering does.
    """
    if form == Form.PACKED:
        laid_out = pack_int4_for_vulkan(tensor)
    elif form == Form.SUMS:
        assert group_size is not None
        laid_out = group_sums(tensor, group_size)
    elif form == Form.TRANSPOSED:
        laid_out = tensor.T
    else:
        laid_out = tensor
    laid_out = _as_dtype(laid_out.detach(), _DTYPES[like.dtype])
    if laid_out.dim() < len(like.shape):  # scales [V] of one group a row, stored as [V, 1]
        laid_out = laid_out.unsqueeze(-1)
    missing = like.shape[-1] - laid_out.shape[-1]
    if missing > 0:
        laid_out = F.pad(laid_out, (0, missing))
    if tuple(laid_out.shape) != like.shape:
        raise QuatrainError(
            f"a {form} constant has shape {list(laid_out.shape)}, but the program expects "
            f"{list(like.shape)}"
        )
    return _bytes(laid_out)


def xnnpack_bytes(form: Form, *tensors: torch.Tensor) -> bytes:
    """The bytes of a constant of ExecuTorch's CPU runtime, the rows of those tensors.

    PACKED: int4 weight [N, K] -> uint8 [N, K/2]; BFLOAT16 and FLOAT32: the tensor in that dtype;
    PLAIN: the unchanged tensor.
    """
    return b"".join(_xnnpack_bytes(form, tensor) for tensor in tensors)


def _xnnpack_bytes(form: Form, tensor: torch.Tensor) -> bytes:
    if form == Form.PACKED:
        return _bytes(pack_int4(tensor))
    dtypes = {
        Form.BFLOAT16: torch.bfloat16, Form.FLOAT32: torch.float32, Form.PLAIN: tensor.dtype,
    }  # fmt: skip
    return _bytes(tensor.detach().to(dtypes[form]))


def store_constants(
    program: Program,
    lay_out: Callable[[_Item], bytes],
    items: Sequence[_Item],
    advance: Callable[[float], None],
) -> list[Constant]:
    """Store `lay_out` of each item, computed on all cores, with `program`; in the items' order.

    `advance` is called with the completed fraction; pages of the checkpoint that were read are
    released on the way.
    """
    stored: list[Constant] = []
    for data in in_order(lay_out, items):
        stored.append(program.add_data(data))
        was_read(2 * len(data))  # a packed weight has half the size of its source
        advance(len(stored) / len(items))
    return stored


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _as_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.dtype == dtype:
        return tensor
    if dtype.is_floating_point:
        limits = torch.finfo(dtype)
        tensor = tensor.clamp(limits.min, limits.max)
    return tensor.to(dtype)


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int | None = None
) -> Iterator[_Result]:
    """`function` of each item, in the order of `items`, computed by `workers` threads (None: one
    a core).

    At most two results per worker wait to be consumed, so memory is bounded for any number of
    items.
    """
    workers = workers or os.cpu_count() or 1
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
