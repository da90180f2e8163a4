"""Runs a release on the phone that adb sees, and compares the answers with expected.json."""

import json
import re
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.release.android import file_for, is_gpu_of, phones_of
from quatrain.release.publish import EXPECTED
from quatrain.stages import Stages
from quatrain.tokenizer.files import TOKENIZER
from quatrain.verify.expected import ExpectedAnswer, read_expected

_FOLDER = "/data/local/tmp/quatrain"
_SHOWN = 60  # characters of what a phone said instead
_RENDERER = re.compile(r"GLES: [^,]+, ([^,]+),")
_STATS = re.compile(r"PyTorchObserver (\{.*?\})")
_SECONDS = 600  # that one prompt may take


@dataclass(frozen=True)
class PhoneRun:
    """The results of the program `file` on the phone `phone`, whose driver calls its GPU
    `renderer`: for each prompt, whether the answer is the expected one ("same"; None if the
    expected one is empty, since every text begins with it), otherwise up to which character it is
    ("characters") and what follows instead ("said"); and the tokens per second that the runner
    reports for the prompt ("prefill") and the answer ("decode"), or None."""

    phone: str
    renderer: str
    file: str
    answers: list[dict[str, Any]]

    def speed(self, of: str) -> float | None:
        """The median of "prefill" or "decode" over the prompts."""
        told = [one[of] for one in self.answers if one[of] is not None]
        return statistics.median(told) if told else None

    @property
    def failures(self) -> list[str]:
        """A sentence for each answer that is not the expected one."""
        return [
            f"on the phone ({self.phone}, {self.renderer}) {self.file} answers {one['prompt']!r} "
            f"differently from character {one['characters']} on: {one['said']!r}"
            for one in self.answers
            if one["same"] is False
        ]


def require_phone(runner: Path) -> None:
    """Raise `InputError` if there is no `runner`, no adb, or not exactly one phone."""
    if not runner.is_file():
        raise InputError(f"--run-on-phone {runner}: no such file; give a runner built for Android")
    if shutil.which("adb") is None:
        raise InputError("--run-on-phone: adb is not on the PATH; nothing was run on a phone")
    lines = _adb("devices").splitlines()[1:]
    ready = [line.split()[0] for line in lines if line.split()[1:2] == ["device"]]
    if len(ready) != 1:
        found = ", ".join(ready) or "; ".join(filter(None, lines)) or "none"
        raise InputError(
            f"--run-on-phone: adb sees {found}, expected one phone that is ready; nothing was run "
            "on a phone (of several, ANDROID_SERIAL names one)"
        )


def run_on_phone(
    release: Path, report: Mapping[str, Any], runner: Path, stages: Stages | None = None
) -> PhoneRun:
    """Push the `runner`, the phone's program and its tokenizer, run each prompt, and compare.

    `runner` takes the options of ExecuTorch's llama_main. Raises `InputError` as `require_phone`,
    and if nothing is expected of that program or adb fails.
    """
    require_phone(runner)
    stages = stages or Stages()
    found = _RENDERER.search(_adb("shell", "dumpsys SurfaceFlinger"))
    renderer = found[1].strip() if found else "unknown"
    file = file_for(phones_of(report), renderer)
    expected = read_expected(release / EXPECTED).get(file or "")
    if file is None or expected is None:
        raise InputError(
            f"--run-on-phone: the release has no program for the phone's GPU, {renderer}"
        )
    with stages(f"push {file}"):
        _adb("shell", f"mkdir -p {_FOLDER}")
        for pushed in (release / file, release / TOKENIZER, runner):
            _adb("push", str(pushed), f"{_FOLDER}/{pushed.name}")
        _adb("shell", f"chmod 755 {_FOLDER}/{shlex.quote(runner.name)}")
    own = (one for one in report["phones"] if is_gpu_of(one["id"], renderer))
    as_on = next((one["as_on"] for one in own if one["file"] == file), None)
    as_there = [one for one in expected.prompts if one.as_on == as_on]
    answers = []
    for number, answer in enumerate(as_there, 1):
        with stages(f"prompt {number} of {len(as_there)} on the phone"):
            output = _ask(runner.name, file, answer)
            answers.append(_compared(answer, output) | speed_in(output))
    model = _adb("shell", "getprop ro.product.model").strip()
    return PhoneRun(model, renderer, file, answers)


def _ask(runner: str, file: str, answer: ExpectedAnswer) -> str:
    """What the runner writes, asked the whole text of a prompt."""
    options = {
        "model_path": file,
        "tokenizer_path": TOKENIZER,
        "prompt": answer.input,
        "temperature": "0",
        # Of prompt and answer; one more, since what comes after the answer is not compared.
        "seq_len": str(len(answer.prompt_tokens) + len(answer.tokens) + 1),
    }
    words = [f"./{runner}", *(f"--{name}={value}" for name, value in options.items())]
    return _adb("shell", f"cd {_FOLDER} && {shlex.join(words)}")


def _compared(answer: ExpectedAnswer, output: str) -> dict[str, Any]:
    """Whether `output`, which may hold the prompt and what the runner reports, has the answer."""
    said = output.rpartition(answer.input)[2] if answer.input in output else output
    said, wanted = said.lstrip(), answer.text.strip()
    pairs = enumerate(zip(said, wanted, strict=False))
    alike = next((at for at, (a, b) in pairs if a != b), min(len(said), len(wanted)))
    same = alike == len(wanted) if wanted else None
    instead = said[alike : alike + _SHOWN] if same is False else None
    return {"prompt": answer.prompt, "same": same, "characters": alike, "said": instead}


def speed_in(output: str) -> dict[str, float | None]:
    """The tokens per second of prompt and answer in what a runner writes.

    Source: ExecuTorch's extension/llm/runner/stats.h, `print_report` and its terms.
    """
    found = _STATS.search(output)
    try:
        said = json.loads(found[1]) if found else {}
        begun, read, ended = (
            said[f"{at}_ms"] for at in ("inference_start", "prompt_eval_end", "inference_end")
        )
        a_second = said["SCALING_FACTOR_UNITS_PER_SECOND"]
        return {
            "prefill": said["prompt_tokens"] / (read - begun) * a_second,
            "decode": said["generated_tokens"] / (ended - read) * a_second,
        }
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        return {"prefill": None, "decode": None}


def _adb(*words: str) -> str:
    """What adb writes. Raises `InputError` if it fails."""
    try:
        done = subprocess.run(
            ["adb", *words], capture_output=True, timeout=_SECONDS, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(
            f"adb {words[0]}: took longer than {_SECONDS} s; is the phone awake?"
        ) from None
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        said = (done.stderr.decode(errors="replace") or output).strip().splitlines()
        reason = said[-1] if said else "it gave no message"
        raise InputError(f"adb {shlex.join(words)[:120]}: failed: {reason}")
    return output
