"""Puts the finished files of a release into its folder, the manifest last."""

import filecmp
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quatrain.atomic_files import flush_to_disk
from quatrain.checkpoint.files.hub import is_on_hub
from quatrain.errors import InputError, remedy_for
from quatrain.json_files import read_object, write_json
from quatrain.release.manifest import manifest
from quatrain.release.report.page import markdown_page, web_page
from quatrain.release.report.report import MadeFile
from quatrain.release.spec import ReleaseSpec, digest_name, write_spec
from quatrain.release.tasks.store import MANIFEST, PROGRAM, WORK
from quatrain.tokenizer.files import CONFIG, TOKENIZER
from quatrain.verify.expected import ExpectedProgram, answers_of, write_expected

EXPECTED, SPEC, REPORT, TEXT = "expected.json", "release.toml", "report", "text.txt"


def publish(
    folder: Path,
    spec: ReleaseSpec,
    made: Sequence[MadeFile],
    report: dict[str, Any],
    sources: Mapping[str, list[dict[str, Any]]],
    checkpoint: Mapping[str, str] | None,
) -> None:
    """Write all files of a release to `folder`, and remove what an earlier one left there.

    Each appears in one rename, the manifest last; unchanged files are not touched. Raises
    `InputError` if something cannot be written.
    """
    try:
        new = folder / WORK / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        portable = _portable(spec, report["name"], sources["reference"])
        if spec.text is not None:
            shutil.copyfile(spec.text, new / TEXT)
        _write(new, portable, made, report)
        files = sorted(new.iterdir())
        earlier = _earlier_files(folder)
        said = manifest(report, portable, sources, checkpoint, files)
        for file in files:
            _replace(file, folder / file.name)
        write_json(new / MANIFEST, said)
        _replace(new / MANIFEST, folder / MANIFEST)
        for name in earlier - {file.name for file in files}:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"-o {folder}: cannot be written: {reason}; {remedy_for(error)}; in the same folder, "
            "the same command resumes the work"
        ) from error


def _write(new: Path, spec: ReleaseSpec, made: Sequence[MadeFile], report: dict[str, Any]) -> None:
    """All files but the manifest."""
    tokenizer = [(name, made[0].export.folder / name) for name in (TOKENIZER, CONFIG)]
    programs = [(one.planned.file, one.export.folder / PROGRAM) for one in made]
    for name, file in [*programs, *tokenizer]:
        if file.is_file():
            link(file, new / name)
    expected = {
        one.planned.file: ExpectedProgram(one.sha256, answers_of(one.expect.result["prompts"]))
        for one in made
    }
    write_expected(new / EXPECTED, expected)
    write_spec(new / SPEC, spec)
    write_json(new / f"{REPORT}.json", report)
    (new / f"{REPORT}.md").write_text(markdown_page(report), encoding="utf-8")
    (new / f"{REPORT}.html").write_text(web_page(report), encoding="utf-8")


def _portable(spec: ReleaseSpec, name: str, reference: Sequence[Mapping[str, Any]]) -> ReleaseSpec:
    """`spec` in a form that is valid on any machine: the `name`, files by their names in the
    release, and the model that it was measured against, whose files are `reference`, by a
    digest."""
    text = Path(TEXT) if spec.text else None
    tokenizer = Path(TOKENIZER) if spec.tokenizer else None
    named = spec.reference
    if named is not None and not is_on_hub(named):
        named = digest_name([one["sha256"] for one in reference]) if reference else None
    return replace(spec, name=name, text=text, tokenizer=tokenizer, reference=named)


def link(file: Path, target: Path) -> None:
    """One more name for `file`, or a copy on disks that know no links."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _replace(file: Path, target: Path) -> None:
    if target.is_file() and (
        target.samefile(file) or filecmp.cmp(file, target, shallow=False)
    ):  # fmt: skip
        file.unlink()
        return
    flush_to_disk(file)
    file.replace(target)


def _earlier_files(folder: Path) -> set[str]:
    """The files that the release in `folder` consists of; none without one."""
    if not (folder / MANIFEST).is_file():
        return set()
    # Only plain names, so that nothing outside the folder is ever removed.
    return {name for name in read_object(folder / MANIFEST)["files"] if Path(name).name == name}
