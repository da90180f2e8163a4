"""What a program stores beside quantized linears and tables: norms, biases, convolutions, routers,
factors and the tables of rotations, against the checkpoint's, bytes with bytes.

A program of ours stores each of them, and so does one of ExecuTorch's own exporter. Another's may
have a norm's weight less 1, or what follows from it; what is neither found nor told apart is said.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.layers.residual import GatedResidual
from quatrain.backbone.model import Backbone
from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.linear import Int4Linear, Int8DynActInt8WeightLinear, QuantizedGroupEmbedding
from quatrain.linear.adapted import Hadamard
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.checks.stored_data import StoredData

_CHECKED_ELSEWHERE = (
    Int4Linear, Int8DynActInt8WeightLinear, nn.Embedding, QuantizedGroupEmbedding,
)  # fmt: skip
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Of the backbone's own tensors, those that follow from params.json.
_FROM_PARAMETERS = ("cos", "sin", "factor")
_ROUNDING = 2.0**-8  # of a number, bfloat16's at most
_UNRELATED = 0.5  # relative distance beyond which tensors are unrelated
_PROBLEM = "is not the checkpoint's"

_Forms = list[list[torch.Tensor]]  # the forms in which a tensor may be stored, each a list of parts


def check_others(
    stored: StoredData, backbone: Backbone, strict: bool, biases: bool
) -> tuple[list[PackedCheck], list[str]]:
    """Look for each tensor of `backbone` outside of quantized linears and embeddings, and for the
    epsilons of its norms. Returns the checks, and the names of tensors that cannot be compared.

    `biases`: look for those of quantized linears too.
    `strict`: the program is Quatrain's, so all must be there. In others, a tensor that is missing,
    with nothing similar, may be folded into something else.
    """
    expected_tensors = list(expected_forms(backbone, biases))
    found = [
        any(
            all(_is_stored(stored, part, _name_in_program(name, part)) for part in form)
            for form in forms
        )
        for name, forms in expected_tensors
    ]
    checks, unknown = [], []
    for (name, forms), is_there in zip(expected_tensors, found, strict=True):
        is_wrong = not is_there and (strict or _is_replaced(stored, forms))
        if is_wrong is None:
            unknown.append(name)
        else:
            checks.append(PackedCheck(name, _PROBLEM if is_wrong else None))
    epsilons = {getattr(module, "eps", None) for module in backbone.modules()}
    for eps in sorted(eps for eps in epsilons if isinstance(eps, float)):
        name, is_there = f"the norms' epsilon, {eps:g}", stored.has_number(eps)
        if is_there or strict:
            checks.append(PackedCheck(name, None if is_there else _PROBLEM))
        else:
            unknown.append(name)
    return checks, unknown


def round_as_stored(stored: StoredData, backbone: Backbone) -> bool:
    """Round the tensors of `backbone` that `check_others` looks for, as a program of another
    exporter stores them; the memory of the checkpoint, which may be released, is not written to.
    Returns whether each is stored."""
    expected_tensors = expected_forms(backbone, biases=False)
    are_stored = [round_if_stored(stored, forms) for _, forms in expected_tensors]
    return all(are_stored)


def round_if_stored(stored: StoredData, forms: _Forms) -> bool:
    """Round the tensor that is stored in one of those `forms`, the first of which is it itself, or
    about so, or less 1. Returns whether it is."""
    tensor = forms[0][0]
    for dtype in _DTYPES:
        if any(all(_is_in(stored, part, dtype, "") for part in form) for form in forms):
            tensor.data = tensor.detach().to(dtype).to(tensor.dtype)  # itself in float32
            return True
    expected = tensor.detach().double().flatten()
    for found in stored.of_length(len(expected)):
        for less in (0, 1):
            if _are_equal(found, expected - less):
                tensor.data = (found + less).reshape(tensor.shape).to(tensor.dtype)
                return True
    return False


def expected_forms(backbone: Backbone, biases: bool) -> Iterator[tuple[str, _Forms]]:
    """(name, the forms in which a program may store it) of each tensor of `backbone` that a program
    needs besides its matrices; the biases of int4 linears only with `biases`."""
    rotations = {
        part for one in backbone.modules() if isinstance(one, Hadamard) for part in one.modules()
    }
    rotated = {layer.rope for layer in backbone.layers} - {"none", "local"}
    for path, module in backbone.named_modules():
        if path == "rope" and not rotated:  # no layer reads its tables
            continue
        if biases and isinstance(module, Int4Linear) and module.bias is not None:
            filled_up = F.pad(module.bias, (0, -len(module.bias) % CHANNELS_TOGETHER))
            yield f"{path}.bias", [[module.bias], [filled_up]]
        if isinstance(module, _CHECKED_ELSEWHERE) or module in rotations:
            continue
        tensors = dict(module.named_parameters(recurse=False))
        buffers = dict(module.named_buffers(recurse=False))
        tensors |= {name: buffers[name] for name in _FROM_PARAMETERS if name in buffers}
        for name, tensor in tensors.items():
            yield f"{path}.{name}", _forms(module, tensor)


def _forms(module: nn.Module, tensor: torch.Tensor) -> _Forms:
    if isinstance(module, GatedResidual):
        return [[tensor], list(module.weights())]
    # Of a convolution by channel, [C, 1, K], each tap.
    return [[tensor], list(tensor[:, 0].T)] if tensor.dim() == 3 else [[tensor]]


def _is_replaced(stored: StoredData, forms: _Forms) -> bool | None:
    """Whether another tensor is stored in place of a missing one; None if that is unknown."""
    answers = [[has_similar(stored, part) for part in form] for form in forms]
    if any(all(answer is False for answer in each) for each in answers):
        return False
    return True if any(True in each for each in answers) else None


def has_similar(stored: StoredData, tensor: torch.Tensor) -> bool | None:
    """Whether a similar but different tensor is stored; False if `tensor` itself is stored,
    rounded to a type of two bytes, or minus 1; None if there is nothing similar, or only a
    multiple of it."""
    expected, like = tensor.detach().double().flatten(), None
    for found in stored.of_length(len(expected)):
        if _are_equal(found, expected) or _are_equal(found, expected - 1):
            return False
        if bool((found == found[0]).all()):
            continue  # such as what a norm is whose weight is folded into linears
        scaled = expected * (found * expected).sum() / (expected * expected).sum()
        off = float((found - scaled).norm() / found.norm())
        if off < _UNRELATED and not _are_equal(found, scaled):
            like = True
    return like


def _are_equal(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(((found - expected).abs() <= _ROUNDING * expected.abs()).all())


def _name_in_program(name: str, tensor: torch.Tensor) -> str:
    """The name under which a program reads `tensor`; empty if other tensors may be equal, such as a
    single number or one computed from params.json, or a table that graphs read later."""
    from_parameters = name.rpartition(".")[2] in _FROM_PARAMETERS
    return "" if from_parameters or tensor.numel() == 1 else name


def _is_stored(stored: StoredData, tensor: torch.Tensor, name: str) -> bool:
    return any(_is_in(stored, tensor, dtype, name) for dtype in _DTYPES)


def _is_in(stored: StoredData, tensor: torch.Tensor, dtype: torch.dtype, name: str) -> bool:
    """Whether `tensor`, that of `name`, is stored in `dtype`."""
    limits = torch.finfo(dtype)
    rounded = tensor.detach().clamp(limits.min, limits.max).to(dtype)
    return stored.has(rounded.contiguous().view(torch.uint8).numpy().tobytes(), name)
