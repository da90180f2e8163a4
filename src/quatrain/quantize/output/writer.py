"""Writes a checkpoint, its tensors one at a time, and goes on where an earlier attempt stopped."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from quatrain.checkpoint.files.safetensors import encoded_header, encoded_tensor
from quatrain.checkpoint.written_tokenizer import write_tokenizer_of
from quatrain.json_files import write_json
from quatrain.quantize.methods import METHODS, Method, quantize_tensor
from quatrain.quantize.opened_source import OpenedSource
from quatrain.quantize.output.output_folder import PARAMS, WEIGHTS
from quatrain.quantize.output.resumable import ResumableFile
from quatrain.quantize.plan.plan import MethodName, Source, TensorPlan
from quatrain.quantize.quantized_tensor import RoundingError
from quatrain.quantize.threads import torch_threads
from quatrain.stages import Stages
from quatrain.tokenizer.copies import with_end_ids
from quatrain.tokenizer.files import CONFIG, TOKENIZER

# The mapped pages that were read count as memory until the source is reopened.
_BYTES_BETWEEN_OPENINGS = 128 << 20


@dataclass(frozen=True)
class Written:
    """`sha256` and `bytes` are of model.safetensors, `tokenizer` the names of its files; `notes`
    whole sentences on what the source says or lacks."""

    tokenizer: list[str]
    notes: list[str]
    resumed_at: int
    sha256: str
    bytes: int


def write_checkpoint(
    opened: OpenedSource,
    folder: Path,
    key: str,
    stages: Stages,
    methods: Mapping[MethodName, Method] = METHODS,
) -> Written:
    """Write all of the checkpoint but its manifest to `folder`."""
    # What is small comes first: where it cannot be made, that shows at once.
    for name in (TOKENIZER, CONFIG):  # of another source, whose conversion was interrupted
        (folder / name).unlink(missing_ok=True)
    tokenizer = write_tokenizer_of(opened.source, folder, opened.tokenizer)
    arguments = {"quantization_args": opened.plan.quantization_args}
    write_json(folder / PARAMS, with_end_ids(opened.source.params | arguments, tokenizer.files))
    file = ResumableFile(folder / WEIGHTS, key)
    resumed_at = _write_tensors(file, opened, stages, methods)
    names, notes = [file.name for file in tokenizer.files], [*opened.source.notes, *tokenizer.notes]
    return Written(names, notes, resumed_at, *file.finish())


def _write_tensors(
    file: ResumableFile,
    opened: OpenedSource,
    stages: Stages,
    methods: Mapping[MethodName, Method],
) -> int:
    """Write what `file` lacks of the tensors; returns how many were there already.

    Holds one tensor in memory at a time. `opened.errors` gets what rounding changed, that of an
    earlier attempt too. `file` is closed where anything is raised.
    """
    plan, errors = opened.plan, opened.errors
    errors |= {name: RoundingError(*error) for name, error in file.carried.items()}
    done = max(0, file.done - 1)  # the first step is the header
    try:
        if file.done == 0:
            file.append([encoded_header(plan.specs)], errors)
        source, since = opened.open_again(), 0
        for part, tensors in groupby(plan.tensors[done:], lambda tensor: tensor.part):
            with stages(f"quantize {part}"), torch_threads(1):
                for tensor in tensors:
                    if since >= _BYTES_BETWEEN_OPENINGS:
                        source, since = opened.open_again(), 0
                    file.append(_quantized_bytes(source, tensor, errors, methods), errors)
                    since += sum(spec.nbytes for spec in tensor.specs)
    except BaseException:
        file.leave(errors)
        raise
    return sum(len(tensor.specs) for tensor in plan.tensors[:done])


def _quantized_bytes(
    source: Source,
    tensor: TensorPlan,
    errors: dict[str, RoundingError],
    methods: Mapping[MethodName, Method],
) -> Iterator[memoryview]:
    """The bytes of the tensors, made when they are asked for, which nothing holds on to once they
    are written."""
    made = quantize_tensor(source, tensor, methods)
    if made.error is not None:
        without = ~made.tensors[0].any(dim=-1)
        zero_rows = int(without.sum()) if tensor.part == "layers" else _most_in_between(without)
        errors[tensor.target] = made.error._replace(zero_rows=zero_rows)
    for spec, content in zip(tensor.specs, made.tensors, strict=True):
        yield encoded_tensor(spec, content)


def _most_in_between(without: torch.Tensor) -> int:
    """The most neighbouring rows `without` weights, bool [N], that a row with weights follows."""
    filled = (~without).nonzero().flatten()
    gaps = filled.diff(prepend=torch.tensor([-1])) - 1
    return int(gaps.max()) if len(gaps) else 0
