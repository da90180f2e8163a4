"""From a model or checkpoint to a checkpoint in the pre-quantized layout.

A source is opened, a plan says what becomes of each of its tensors, a method makes each when its
turn comes, one writer puts them into a file, and one report says what that changed.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quatrain.atomic_files import whole_folder
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.files.safetensors import encoded_header
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError
from quatrain.json_files import write_json
from quatrain.quantize.arguments import check_arguments
from quatrain.quantize.output_folder import MANIFEST, OWN_FILES, PARAMS, WEIGHTS, output_folder
from quatrain.quantize.plan import EmbeddingFormat, OutputFormat, Plan, Source
from quatrain.quantize.plan_checkpoint import plan_checkpoint
from quatrain.quantize.plan_model import plan_model
from quatrain.quantize.quantized_tensor import RoundingError, relative_rms
from quatrain.quantize.report import QuantizeReport
from quatrain.quantize.requantize import Requantization
from quatrain.quantize.resumable import ResumableFile, resumable_folder, sha256_of
from quatrain.quantize.writer import write_tensors
from quatrain.stages import Stages, peak_rss_bytes
from quatrain.tokenizer.files import CONFIG, TOKENIZER

_GROUP_SIZE = 32  # for a source in floating point, unless another is asked for


@dataclass(frozen=True)
class ConvertOptions:
    """What `convert_model` is to change.

    Attributes:
        group_size: Weights of a row that share a scale: 32, 64, 128 or 256, for a source in
            floating point alone. None is 32, or a quantized source's own.
        embedding: "int4" in groups, "int8" per row, or "fp"; "keep" is a quantized source's own,
            and as in `quantize_model` for others.
        output_layer: "int4" in groups or "int8" per channel; "keep" likewise.
        requantize_asymmetric: Round anew the linears that the layout cannot hold: those with zero
            points, and those in act-order.
    """

    group_size: int | None = None
    embedding: EmbeddingFormat = "keep"
    output_layer: OutputFormat = "keep"
    requantize_asymmetric: bool = False


def quantize_model(
    model: Path | str,
    output: Path | str,
    group_size: int = _GROUP_SIZE,
    embedding: EmbeddingFormat = "keep",
    output_layer: OutputFormat = "keep",
    stages: Stages | None = None,
) -> QuantizeReport:
    """Write a floating-point model as an int4 checkpoint.

    The linears of the layers become int8 [N, K] in [-8, 7], with a float32 scale per group
    [N, K / group size]. Writes model.safetensors, params.json and the tokenizer, whole or not at
    all; the same input gives the same bytes. Holds one tensor in memory at a time.

    Args:
        model: As `open_float_model` takes it.
        output: The folder to write. An earlier checkpoint there is replaced, its tokenizer too.
        group_size: Weights of a row that share a scale: 32, 64, 128 or 256.
        embedding: "int4" in groups, "int8" per row, or "fp"; "keep" is int4 where a GGUF file has
            it as Q4_0, and int8 elsewhere.
        output_layer: "int4" in groups or "int8" per channel; "keep" is int4.
        stages: Hears of each stage.

    Raises:
        InputError: Where the model cannot be read or does not divide into groups, or `output`
            cannot be written or holds something else.
    """
    check_arguments(model, output, group_size)
    stages = stages or Stages()
    path = local_path(model)
    with stages("open the model"):
        source = open_float_model(path)
        plan = plan_model(source, group_size, embedding, output_layer)
        files = source_files(path, None)
        opened = _Opened(path, files, source, plan, lambda: open_float_model(path))
        folder = output_folder(Path(output), files)
    with whole_folder(folder, OWN_FILES) as temporary:
        # Without a key: the folder is new, there is nothing to go on with.
        written = _write(opened, temporary, "", stages)
    return _report(opened, Path(output), written, stages)


def convert_model(
    source: Path | str,
    output: Path | str,
    options: ConvertOptions | None = None,
    params: Path | str | None = None,
    stages: Stages | None = None,
) -> QuantizeReport:
    """Write any model or checkpoint in the pre-quantized layout.

    Integers and scales that the layout can hold are the source's own. Writes model.safetensors,
    params.json, the tokenizer, and quatrain_manifest.json with the SHA-256 of every source file and
    of the result. Holds one tensor in memory at a time. An interrupted conversion goes on where it
    was when it is asked for again.

    Args:
        source: As `open_checkpoint` or `open_float_model` takes it.
        output: The folder to write, which appears when it is whole. An earlier checkpoint there is
            replaced, its tokenizer too.
        options: None changes nothing that the layout can hold.
        params: The params.json of a checkpoint that is a file, where it is not beside it.
        stages: Hears of each stage.

    Raises:
        InputError: Where the source cannot be read, or the output cannot be written or holds
            something else.
    """
    options, stages, target = options or ConvertOptions(), stages or Stages(), Path(output)
    check_arguments(source, target, options.group_size, params)
    with stages("open the source"):
        opened = _open(local_path(source), None if params is None else Path(params), options)
        options = replace(options, group_size=opened.plan.group_size)
        output_folder(target, opened.files)
    with stages("digest the source"):
        files = [
            {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file).hexdigest()}
            for file in opened.files
        ]
    said = json.dumps([version("quatrain"), files, asdict(options)])
    key = hashlib.sha256(encoded_header(opened.plan.specs) + said.encode()).hexdigest()
    with resumable_folder(target, OWN_FILES) as folder:
        with stages("write the tensors"):
            written = _write(opened, folder, key, Stages())
        write_json(folder / MANIFEST, _manifest(opened, files, options, written))
    return _report(opened, target, written, stages)


@dataclass(frozen=True)
class _Opened:
    """A source and what is to become of it. `files`: those it is read from. `errors`: what
    rounding changed, noted as it happens."""

    path: Path
    files: list[Path]
    source: Source
    plan: Plan
    open_again: Callable[[], Source]
    errors: dict[str, RoundingError] = field(default_factory=dict)

    def rounded(self) -> list[RoundingError]:
        """Of the matrices that are not exactly the source's."""
        return [error for error in self.errors.values() if error.squared_error]


@dataclass(frozen=True)
class _Written:
    """`sha256` and `bytes` are of model.safetensors, `tokenizer` the names of its files."""

    tokenizer: list[str]
    resumed_at: int
    sha256: str
    bytes: int


def _open(path: Path, params: Path | None, options: ConvertOptions) -> _Opened:
    """The source in floating point or quantized, with its plan."""
    if not is_quantized(path):
        if params is not None:
            raise InputError(
                f"--params {params}: {path} is in floating point, whose parameters are those in "
                "its own folder; put the file there as params.json, or leave out the option"
            )
        model, group_size = open_float_model(path), options.group_size or _GROUP_SIZE
        plan = plan_model(model, group_size, options.embedding, options.output_layer)
        return _Opened(path, source_files(path, None), model, plan, lambda: open_float_model(path))

    requantization = Requantization()
    round_again = requantization if options.requantize_asymmetric else None

    def open_again() -> Source:
        return open_checkpoint(path, params, round_again)

    checkpoint = open_checkpoint(path, params, round_again)
    plan = plan_checkpoint(checkpoint, options.group_size, options.embedding, options.output_layer)
    files = source_files(path, params)
    return _Opened(path, files, checkpoint, plan, open_again, requantization.errors)


def _write(opened: _Opened, folder: Path, key: str, stages: Stages) -> _Written:
    """Write all of the checkpoint but its manifest to `folder`."""
    # What is small comes first: where it cannot be made, that shows at once.
    for name in (TOKENIZER, CONFIG):  # of another source, whose conversion was interrupted
        (folder / name).unlink(missing_ok=True)
    tokenizer = [file.name for file in opened.source.write_tokenizer(folder)]
    arguments = {"quantization_args": opened.plan.quantization_args}
    write_json(folder / PARAMS, opened.source.params | arguments)
    file = ResumableFile(folder / WEIGHTS, key)
    resumed_at = write_tensors(file, opened.plan, opened.open_again, opened.errors, stages)
    return _Written(tokenizer, resumed_at, *file.finish())


def _manifest(
    opened: _Opened, files: list[dict[str, Any]], options: ConvertOptions, written: _Written
) -> dict[str, Any]:
    """What was made of what; nothing in it depends on where or when."""
    rounded = opened.rounded()
    return {
        "quatrain": version("quatrain"),
        "source": files,
        "options": asdict(options),
        "rounded": {
            "tensors": len(rounded),
            "relative_rms_error": float(f"{relative_rms(rounded):.6g}"),
        },
        "output": {"name": WEIGHTS, "bytes": written.bytes, "sha256": written.sha256},
    }


def _report(opened: _Opened, output: Path, written: _Written, stages: Stages) -> QuantizeReport:
    plan, errors, rounded = opened.plan, opened.errors, opened.rounded()
    parts: dict[str, list[RoundingError]] = {}
    if isinstance(opened.source, FloatModel):
        for tensor in plan.tensors:
            of_part = parts.setdefault(tensor.part, [])
            of_part += [errors[tensor.target]] if tensor.target in errors else []
    own = [output / name for name in OWN_FILES]
    return QuantizeReport(
        source=str(opened.path),
        output=str(output),
        group_size=plan.group_size,
        tensors=len(plan.specs),
        resumed_at=written.resumed_at,
        bytes_in=sum(file.stat().st_size for file in opened.files),
        bytes_out=sum(file.stat().st_size for file in own if file.is_file()),
        weights_bytes=written.bytes,
        rounded=len(rounded),
        relative_rms_error=relative_rms(rounded),
        relative_rms_error_by_part={part: relative_rms(of) for part, of in parts.items()},
        exact_groups=sum(error.exact_groups for error in errors.values()),
        negative_scales=sum(error.negative_scales for error in errors.values()),
        tokenizer=written.tokenizer,
        seconds=dict(stages.seconds),
        peak_rss_bytes=peak_rss_bytes(),
    )
