"""Makes the files to ship from a model, in one call that can be resumed."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.hub import is_on_hub, local_path
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.errors import AlreadyQuantized, InputError
from quatrain.export.exporter import context_length
from quatrain.release.android import check_module, lay_out
from quatrain.release.arguments import check_arguments, check_workers
from quatrain.release.licence import licence_of
from quatrain.release.on_phone import PhoneRun, require_phone, run_on_phone
from quatrain.release.pipeline import Pipeline, reference_of, usual_workers
from quatrain.release.plan import ReleasePlan, plan_release
from quatrain.release.publish import publish
from quatrain.release.report.report import report_data
from quatrain.release.spec import ReleaseSpec
from quatrain.release.tasks.store import WORK, Store, held_alone
from quatrain.stages import Stages
from quatrain.text_files import read_text
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.files import TOKENIZER
from quatrain.verify.expected import asked_tokens


@dataclass(frozen=True)
class Release:
    """A finished release.

    Attributes:
        folder: The folder that was written.
        plan: Its programs, and the file for each phone.
        report: The content of report.json.
        failures: The gates and checks that failed, as sentences.
        phone: The result of running it on a phone, if that was requested.
    """

    folder: Path
    plan: ReleasePlan
    report: dict[str, Any]
    failures: list[str]
    phone: PhoneRun | None = None

    def as_dict(self) -> dict[str, Any]:
        """The release as plain data, ready for JSON."""
        on_phone = {"on_phone": asdict(self.phone)} if self.phone else {}
        said = {"folder": self.folder, "passed": not self.failures}
        return said | self.report | on_phone | {"failures": self.failures}


def planned_release(model: Path | str, spec: ReleaseSpec) -> ReleasePlan:
    """What `make_release` would write for `model`, from headers only; raises `InputError` as that
    does."""
    return _plan_and_chat(model, spec)[0]


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _plan_and_chat(model: Path | str, spec: ReleaseSpec) -> tuple[ReleasePlan, bool]:
    """The plan, and whether prompts are put into the model's chat template."""
    source = local_path(model)
    _require_reference(source, spec)
    plan = plan_release(source, spec.name or name_of(model), spec)
    opened = _opened_source(source)
    tokenizer = _tokenizer(opened, source, spec)
    chat = tokenizer.chat_template is not None if spec.chat is None else spec.chat
    _require_texts(tokenizer, spec, chat, context_length(opened, spec.max_seq_len))
    return plan, chat


def make_release(
    model: Path | str,
    output: Path | str,
    spec: ReleaseSpec | None = None,
    jobs: int | None = None,
    stages: Stages | None = None,
    android: Path | str | None = None,
    runner: Path | str | None = None,
    ray: str | None = None,
) -> Release:
    """Make the files to ship for `model`: a program for each distinct need of the phones, the
    tokenizer, expected.json, manifest.json and the report.

    Intermediate results are kept in `output`/.work under a digest of what they depend on: after an
    interruption the same call continues, and after a complete run it changes nothing.

    Args:
        model: A floating-point model or an int4 checkpoint, as for `open_float_model` and
            `open_checkpoint`.
        output: The folder to write. An earlier release there is replaced.
        spec: What to make; None means one program for the CPU.
        jobs: How many tasks to run at a time, each in its own process; None means as many as cores
            and memory allow, if that is faster.
        stages: Receives the progress of each stage.
        android: An Android module, such as app/; the release is added to its assets.
        runner: A runner for Android, such as ExecuTorch's llama_main. It runs the release on the
            phone that adb sees, and the answers are compared with expected.json.
        ray: The address of a Ray cluster that runs the tasks instead of local processes; "auto" is
            the cluster of this machine. Its machines must share `output` and `model`.

    Raises:
        InputError: The model, the folder or something in `spec` is wrong, or a phone is needed and
            there is none.
    """
    spec, stages, folder = spec or ReleaseSpec(), stages or Stages(), Path(output)
    android, runner = _path(android), _path(runner)
    check_arguments(model, folder, spec)
    check_workers(jobs, ray)
    if android is not None:
        check_module(android)
    if runner is not None:
        require_phone(runner)
    source = local_path(model)
    with stages("plan"):
        plan, chat = _plan_and_chat(model, spec)
    workers = usual_workers(plan.files, jobs, ray)
    with held_alone(folder / WORK):
        pipeline = Pipeline(source, plan, spec, chat, Store(folder / WORK), stages, workers)
        report = _made(pipeline, folder, spec)
        if android is not None:
            with stages("lay out the assets"):
                lay_out(folder, report, android)
        phone = run_on_phone(folder, report, runner, stages) if runner else None
    failures = [*report["failures"], *(phone.failures if phone else ())]
    return Release(folder, pipeline.plan, report, failures, phone)


def _made(pipeline: Pipeline, folder: Path, spec: ReleaseSpec) -> dict[str, Any]:
    """Make what is missing and put it into `folder`; the report."""
    files = pipeline.files()
    quantized = pipeline.quantized.result if pipeline.quantized else None
    layers = pipeline.layers.result if pipeline.layers else None
    report = report_data(pipeline.plan, spec, files, quantized, licence_of(pipeline.source), layers)
    with pipeline.stages("write the release"):
        publish(folder, spec, files, report, pipeline.sources(), pipeline.checkpoint_files())
    pipeline.store.keep_digests()
    pipeline.store.keep_only(pipeline.tasks)
    return report


def _require_reference(source: Path, spec: ReleaseSpec) -> None:
    """Refuse a missing model in floating point, and one that is another: from headers, before it
    is read at the very end."""
    if spec.needs_reference and reference_of(source, spec) is None:
        raise InputError(
            f"--{spec.needs_reference[0]} compares with the floating-point model, but {source} is "
            "a checkpoint; give the original model as --reference"
        )
    if spec.reference is None:
        return
    reference = local_path(spec.reference)
    try:
        exact = open_float_model(reference).config
    except AlreadyQuantized as error:
        raise InputError(
            f"--reference {spec.reference}: is an int4 checkpoint, but a release is compared with "
            "a model in floating point; give the original model"
        ) from error
    own = _opened_source(source).config
    for field in ("vocab_size", "n_layers", "dim"):
        found, expected = getattr(exact, field), getattr(own, field)
        if found != expected:
            raise InputError(
                f"--reference {spec.reference}: its {field} is {found}, but {expected} for "
                f"{source}; give the original model"
            )


def _opened_source(source: Path) -> Checkpoint | FloatModel:
    return open_checkpoint(source) if is_quantized(source) else open_float_model(source)


def _tokenizer(opened: Checkpoint | FloatModel, source: Path, spec: ReleaseSpec) -> Tokenizer:
    """Raises `InputError` if there is none, which expected.json and the phone both need."""
    if spec.tokenizer is not None:
        return Tokenizer.load(spec.tokenizer)
    with TemporaryDirectory(prefix="quatrain-") as folder:
        written = opened.write_tokenizer(Path(folder))
        files = [file for file in written if file.name == TOKENIZER]
        if not files:
            raise InputError(
                f"{source}: has no tokenizer, which a phone needs; name one in --spec, as "
                "tokenizer = 'tokenizer.json'"
            )
        tokenizer = Tokenizer.load(files[0])
        tokenizer.source = str(source)  # what messages name; the folder is soon gone
        return tokenizer


def _require_texts(tokenizer: Tokenizer, spec: ReleaseSpec, chat: bool, context: int) -> None:
    """Refuse a prompt without tokens, or with more than the programs' `context`, and a text in
    which there is nothing to predict."""
    if spec.text is not None and len(tokenizer.encode(read_text(spec.text))) < 2:
        raise InputError(
            f"--text {spec.text}: has fewer than two tokens; there is nothing to predict"
        )
    for prompt in spec.prompts:
        count = len(asked_tokens(tokenizer, prompt, chat)[1])
        if not count:
            raise InputError(f"prompts: {prompt!r} has no tokens; give some text")
        if count > context:
            raise InputError(
                f"prompts: {prompt!r} has {count} tokens{' in the chat template' * chat}, but the "
                f"programs' context is {context}; shorten it, or set a longer max-seq-len if the "
                "model supports it"
            )


def name_of(model: Path | str) -> str:
    """The name of a model, in characters that every file system allows."""
    if is_on_hub(model):
        name = str(model).rpartition("/")[2].partition("@")[0]
    else:
        path = Path(model).resolve()
        name = path.name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
