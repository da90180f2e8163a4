"""Any model or checkpoint to the pre-quantized safetensors layout."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quatrain.atomic_files import publish_folder
from quatrain.checkpoint import Checkpoint, FloatModel, open_checkpoint, open_float_model
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.files.safetensors import encoded_header, encoded_tensor
from quatrain.checkpoint.source_files import is_quantized, source_files
from quatrain.errors import InputError
from quatrain.json_files import write_json
from quatrain.quantize.model import one_thread
from quatrain.quantize.output_folder import MANIFEST, OWN_FILES, PARAMS, WEIGHTS, output_folder
from quatrain.quantize.output_tensors import OutputTensors, tensors_of_checkpoint, tensors_of_model
from quatrain.quantize.plan import EmbeddingFormat
from quatrain.quantize.requantize import Requantization
from quatrain.quantize.resumable import ResumableFile, sha256_of, working_folder
from quatrain.stages import Stages, peak_rss_bytes
from quatrain.tokenizer.files import CONFIG, TOKENIZER

# The mapped pages of what was read count as memory until the source is opened anew.
_BYTES_BETWEEN_OPENINGS = 128 << 20


@dataclass(frozen=True)
class ConvertOptions:
    """`embedding` and `output_layer`: 'keep' leaves a quantized source's as they are, and gives a
    floating-point source's what `plan` does. `group_size` can be chosen for floating-point sources
    alone: None is 32, or a quantized source's own. `requantize_asymmetric` rounds anew the linears
    that the layout cannot hold."""

    group_size: int | None = None
    embedding: EmbeddingFormat = "keep"
    output_layer: EmbeddingFormat = "keep"
    requantize_asymmetric: bool = False


@dataclass
class ConvertReport:
    """What `convert_model` did. `rounded`: how many matrices are not exactly the source's, and
    `relative_rms_error` how far those are from it. `resumed_at`: tensors found already written."""

    source: str
    output: str
    group_size: int
    tensors: int
    resumed_at: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    rounded: int = 0
    relative_rms_error: float = 0.0
    tokenizer: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = 0


def convert_model(
    source: Path | str,
    output: Path | str,
    options: ConvertOptions | None = None,
    params: Path | str | None = None,
    stages: Stages | None = None,
) -> ConvertReport:
    """Write `source`, whatever `open_checkpoint` or `open_float_model` opens, to folder `output`.

    Writes model.safetensors, params.json, the tokenizer, and quatrain_manifest.json with the
    SHA-256 of every source file and of the result. Integers and scales that the layout can hold
    are the source's own. Holds one tensor in memory at a time. An interrupted conversion goes on
    where it was when it is asked for again; `output` appears when it is whole. An earlier
    checkpoint there is replaced, its tokenizer too. Raises `InputError` where the source cannot be
    read, or the output cannot be written or holds something else (see `output_folder`).
    """
    options, stages = options or ConvertOptions(), stages or Stages()
    source, target = local_path(source), Path(output)
    params = None if params is None else Path(params)
    changes, quantized = Requantization(), is_quantized(source)
    if params is not None and not quantized:
        raise InputError(
            f"--params {params}: {source} is in floating point, whose parameters are those in its "
            "own folder; put the file there as params.json, or leave out the option"
        )

    again = changes if options.requantize_asymmetric else None

    def open_source() -> Checkpoint | FloatModel:
        if quantized:
            return open_checkpoint(source, params, again)
        return open_float_model(source)

    with stages("open the source"):
        opened = open_source()
        pieces, arguments = _output_tensors(opened, options, changes)
        options = replace(options, group_size=arguments["group_size"])
        read = source_files(source, params)
        output = output_folder(target, read)
    with stages("digest the source"):
        files = [
            {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file).hexdigest()}
            for file in read
        ]
    specs = [spec for output_tensors in pieces for spec in output_tensors.specs]
    report = ConvertReport(str(source), str(target), arguments["group_size"], len(specs))
    header = encoded_header(specs)
    said = json.dumps([version("quatrain"), files, asdict(options)])
    key = hashlib.sha256(header + said.encode()).hexdigest()
    try:
        folder = working_folder(output)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # What is small comes first: where it cannot be made, that shows at once.
            report.tokenizer = _write_tokenizer(opened, folder)
            write_json(folder / PARAMS, opened.params | {"quantization_args": arguments})
            digest, report.bytes_out = _write(
                folder, key, header, pieces, open_source, changes, report, stages
            )
        except InputError:
            shutil.rmtree(folder, ignore_errors=True)  # the same again would fail the same way
            raise
        report.rounded = len(changes.errors)
        report.relative_rms_error = changes.relative_rms_error()
        write_json(folder / MANIFEST, _manifest(report, files, options, digest))
        publish_folder(folder, output, OWN_FILES)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written: {error.strerror or error}. Free some space or choose "
            "another place, and run it again: it goes on where it was."
        ) from error
    report.bytes_in = sum(file["bytes"] for file in files)
    report.seconds = dict(stages.seconds)
    report.peak_rss_bytes = peak_rss_bytes()
    return report


def _output_tensors(
    opened: Checkpoint | FloatModel, options: ConvertOptions, changes: Requantization
) -> tuple[list[OutputTensors], dict[str, Any]]:
    group_size = options.group_size
    if isinstance(opened, Checkpoint):
        if group_size not in (None, opened.group_size):
            raise InputError(
                f"--group-size {group_size}: {opened.source} is quantized already, in groups of "
                f"{opened.group_size}; leave out the option, or convert the floating-point model"
            )
        return tensors_of_checkpoint(opened, options.embedding, options.output_layer, changes)
    group_size = 32 if group_size is None else group_size
    return tensors_of_model(opened, group_size, options.embedding, options.output_layer, changes)


def _write(
    folder: Path,
    key: str,
    header: bytes,
    pieces: list[OutputTensors],
    open_source: Callable[[], Checkpoint | FloatModel],
    changes: Requantization,
    report: ConvertReport,
    stages: Stages,
) -> tuple[str, int]:
    """Write the pieces that are not there yet; returns the file's SHA-256 and size."""
    file = ResumableFile(folder, key)
    changes.errors |= {name: tuple(error) for name, error in file.carried.items()}
    report.resumed_at = sum(
        len(output_tensors.specs) for output_tensors in pieces[: max(0, file.done - 1)]
    )
    try:
        with stages("write the tensors"), one_thread():
            if file.done == 0:
                file.append([header], changes.errors)
            opened, since = open_source(), 0
            for output_tensors in pieces[file.done - 1 :]:
                if since >= _BYTES_BETWEEN_OPENINGS:
                    opened, since = open_source(), 0
                file.append(_chunks(output_tensors, opened), changes.errors)
                since += sum(spec.nbytes for spec in output_tensors.specs)
    except BaseException:
        file.leave(changes.errors)
        raise
    return file.finish()


def _chunks(output_tensors: OutputTensors, opened: Checkpoint | FloatModel) -> Iterator[memoryview]:
    """The bytes of the piece's tensors, which nothing holds on to once they are written."""
    tensors = output_tensors.make(opened)
    for spec, tensor in zip(output_tensors.specs, tensors, strict=True):
        yield encoded_tensor(spec, tensor)


def _write_tokenizer(opened: Checkpoint | FloatModel, folder: Path) -> list[str]:
    for name in (TOKENIZER, CONFIG):  # of another source, whose conversion was interrupted
        (folder / name).unlink(missing_ok=True)
    return [file.name for file in opened.write_tokenizer(folder)]


def _manifest(
    report: ConvertReport, files: list[dict[str, Any]], options: ConvertOptions, digest: str
) -> dict[str, Any]:
    """What was made of what; nothing in it depends on where or when."""
    return {
        "quatrain": version("quatrain"),
        "source": files,
        "options": asdict(options),
        "rounded": {
            "tensors": report.rounded,
            "relative_rms_error": float(f"{report.relative_rms_error:.6g}"),
        },
        "output": {
            "name": WEIGHTS,
            "bytes": report.bytes_out,
            "sha256": digest,
        },
    }
