"""The command line: exit codes, one message per error, help that teaches."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from tests.support.command_line import invoked
from tests.support.formats.gguf_files import write_gguf
from tests.support.models.tiny_checkpoint import write_checkpoint
from tests.support.models.tiny_models import float_tensors
from tests.support.models.tiny_programs import Tiny, shared_tiny_xnnpack
from tests.support.paths import ROOT
from tests.support.programs import artifact
from tests.support.thorough import thorough

from quatrain.cli import COMMANDS, build_app, exit_cleanly, main
from quatrain.commands._before_torch import check_output, leave_cores_to_executorch
from quatrain.commands.printing.progress import said_where_slow
from quatrain.errors import InputError


def quatrain(*arguments, module="quatrain") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip


# Python and torch start once for all calls of it.
IN_ONE_PROCESS = """
import contextlib, io, json, sys, traceback
from quatrain import cli
done = []
for arguments in json.load(sys.stdin):
    sys.argv, code, out, err = ["quatrain", *arguments], 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    done.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


def in_one_process(calls: list[list[str]]) -> list[subprocess.CompletedProcess]:
    """What `quatrain` does with each list of arguments, one after the other."""
    ran = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS], input=json.dumps(calls), capture_output=True,
        text=True, check=True, env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip
    found = json.loads(ran.stdout)
    return [
        subprocess.CompletedProcess(call, *said) for call, said in zip(calls, found, strict=True)
    ]


def refused(done: subprocess.CompletedProcess) -> str:
    """The one message of a call that is the user's mistake."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def shown() -> dict[tuple[str, ...], str]:
    """What `-h` and `--help` show, of a command and of none."""
    calls = [
        [*command, flag] for command in ((), *((command,) for command in COMMANDS)) for flag in HELP
    ]
    done = in_one_process(calls)
    assert [one.returncode for one in done] == [0] * len(calls)
    return {tuple(one.args): one.stdout for one in done}


HELP = ("-h", "--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_the_common_options(command, shown):
    for flag in HELP:
        assert "Example" in shown[command, flag]
        assert "--json" in shown[command, flag]
        assert "--debug" in shown[command, flag]


def test_every_option_says_what_it_is() -> None:
    commands = typer.main.get_command(build_app()).commands
    without = [
        (name, one.name) for name in commands for one in commands[name].params if not one.help
    ]
    assert not without


@pytest.mark.parametrize("arguments", [[], *([command] for command in COMMANDS)])
def test_help_shows_flags_without_a_type(arguments, shown):
    text = shown[*arguments, "--help"]
    assert "<bool>" not in text and "--help" in text


def test_the_version_and_all_verbs_are_shown():
    assert quatrain("--version").stdout == f"quatrain {version('quatrain')}\n"
    listed = quatrain("--help").stdout
    assert "Export int4" in listed and all(f" {command} " in listed for command in COMMANDS)


def test_help_names_the_defects_that_can_be_emulated(shown):
    from quatrain.runtime.defects import EmulatedDefect

    for command in ("run", "verify", "evaluate"):
        text = " ".join(shown[command, "--help"].replace("│", " ").split())
        *others, last = EmulatedDefect
        assert f"{', '.join(others)} or {last}" in text


# What a key of --json is not called, since something else in the list says it.
OTHER_NAMES = {
    "path": "program", "nbytes": "bytes", "bytes_before": "bytes_in", "bytes_after": "bytes_out",
    "linear_scheme": "scheme", "ok": "passed", "hazard": "defect", "hazards": "fatal",
    "places": "occurrences", "fix": "remedy", "linear": "name", "note": "notes",
    "tokenizer": "tokenizer_files",
}  # fmt: skip


def test_json_has_one_name_for_one_thing(tiny: Tiny, tmp_path: Path) -> None:
    program, checkpoint = tiny.programs["8da4w"], tiny.checkpoint
    (tmp_path / "phone.txt").write_text("w3 w4")
    for words in (
        ["convert", checkpoint, tmp_path / "int4"],
        ["plan", checkpoint],
        ["run", program, "--prompt", "w5", "--max-new-tokens", "1", "--device", "reference"],
        ["inspect", program],
        ["retarget", program, "-o", tmp_path / "m.pte", "--linear-scheme", "weight-only"],
        ["doctor", program, "--device", "mali-g715", "--runtime", "1.3"],
        ["verify", program, checkpoint, "--device", "reference", "--new-tokens", "1"],
        ["evaluate", checkpoint, "--tokens", "9"],
        ["diagnose", program],
        ["explain", tmp_path / "phone.txt", "--program", program, "--prompt", "w5"],
    ):
        done = invoked([*words, "--json"])
        assert done.exit_code == 0, done.output
        found = OTHER_NAMES.keys() & _keys(json.loads(done.stdout))
        assert not found, words[0]


def _keys(value: Any) -> Iterator[str]:
    """Of the objects in `value`, but not the names that a program or a stage has."""
    if isinstance(value, list):
        for one in value:
            yield from _keys(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _keys(one) if key not in ("metadata", "seconds") else ()


def test_a_closed_standard_error_does_not_crash(tmp_path):
    """Of a command that shows its stages there."""
    model = write_gguf(tmp_path / "m.gguf", float_tensors(n_layers=1), kind="Q4_0")
    output = tmp_path / "int4"
    for streams, arguments, code in (
        ("2>&-", ["convert", str(model), str(output)], 0),
        (">&- 2>&-", ["export", "nowhere", "-o", str(tmp_path / "m.pte")], 2),
    ):
        command = shlex.join([sys.executable, "-m", "quatrain", *arguments])
        assert subprocess.run(f"{command} {streams}", shell=True).returncode == code
    assert (output / "model.safetensors").is_file()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from quatrain.cli import build_app; build_app(); "
        "print(*[m for m in ('torch', 'executorch', 'numpy', 'wgpu') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_windows_is_refused_in_one_message():
    code = (
        "import sys; sys.modules |= {'fcntl': None, 'resource': None}; "
        "from quatrain import cli; cli.build_app(); sys.platform = 'win32'; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "Linux or macOS; on Windows use it in WSL 2" in refused(done)


MISTAKES = {
    "export, no such checkpoint": (
        ["export", "nowhere", "-o", "m.pte"], "nowhere",
    ),
    "export, the folder of the output is missing": (
        ["export", "nowhere", "-o", "{folder}/no/m.pte"], "m.pte: cannot be written: there is no",
    ),
    "export, the output is a folder": (["export", "nowhere", "-o", "{folder}"], "is a folder"),
    "export, a word of quantize's": (
        ["export", "smollm2", "-o", "m.pte"], "run `quatrain quantize smollm2 -o smollm2-int4`",
    ),
    "diagnose, a word of quantize's": (["diagnose", "smollm2"], "and diagnose smollm2-int4"),
    "convert, a word of quantize's": (["convert", "smollm2", "c"], "run `quatrain quantize"),
    "export, an unknown target": (
        ["export", "nowhere", "-o", "m.pte", "--target", "list"],
        "--target list: no profile of a device 'list'; known are mali-g76, mali-g610",
    ),
    "export, a target that is two": (
        ["export", "nowhere", "-o", "m.pte", "--target", "galaxy-s24"],
        "--target galaxy-s24: 'galaxy-s24' is sold with two chips",
    ),
    "doctor, an unknown phone among others": (
        ["doctor", "nowhere.pte", "--device", "galaxy-s24", "--device", "pixel-1"],
        "--device pixel-1: no profile of a device 'pixel-1'; most like it are",
    ),
    "explain, an unknown release": (
        ["explain", "nowhere", "--program", "nowhere.pte", "--prompt", "x", "--runtime", "9.9"],
        "--runtime 9.9: nothing is known of ExecuTorch runtime '9.9'; known are 1.0, ",
    ),
    "run, no release after a phone": (
        ["run", "nowhere.pte", "--prompt", "x", "--as-on", "pixel-8@"],
        "--as-on pixel-8@: '' is no ExecuTorch version; expected one such as 1.3",
    ),
    "logits, in place of its checkpoint": (
        ["logits", "{checkpoint}", "--tokens", "1", "-o", "{checkpoint}/model.safetensors"],
        "model.safetensors: would overwrite the input",
    ),
    "inspect, in place of what lies beside": (
        ["inspect", "{checkpoint}/model.safetensors", "--html", "{checkpoint}/params.json"],
        "params.json: would overwrite the input",
    ),
    "inspect, in place of its program": (
        ["inspect", "{checkpoint}/params.json", "--html", "{checkpoint}/params.json"],
        "params.json: would overwrite the input",
    ),
    "export, in place of its tokenizer": (
        ["export", "nowhere", "--tokenizer", __file__, "-o", __file__], "would overwrite the input",
    ),
    "inspect, the standard output": (
        ["inspect", "nowhere.pte", "--html", "-"], "--html -: the output cannot",
    ),
    "convert, the standard output": (["convert", "{checkpoint}", "-"], "-: the output cannot go"),
    "release, the standard output": (
        ["release", "{checkpoint}", "-o", "-"], "-o -: the output cannot",
    ),
    "run, a device for a file": (
        ["run", "nowhere.pte", "--prompt", "x", "--profile", "/dev/null"], "is a device or a pipe",
    ),
    "explain, the standard input": (
        ["explain", "-", "--program", "nowhere.pte", "--prompt", "x"], "input is /dev/stdin",
    ),
    "export, an option before the command": (
        ["-o", "a.pte", "export", "nowhere"], "-o is before the command export; give options after",
    ),
    "export, an option of one value twice": (
        ["export", "nowhere", "-o", "a.pte", "--output", "b.pte"], "--output is given 2 times",
    ),
    "quantize, an output without a name": (["quantize", "nowhere", "-o", ""], "--output is empty"),
    "release, a model without a name": (["release", "", "-o", "out"], "MODEL is empty, expected a"),
    "evaluate, a text without a name": (["evaluate", "nowhere", "--text", ""], "--text is empty"),
    "quantize, one of several texts without a name": (
        ["quantize", "nowhere", "-o", "c", "--calibration", __file__, "--calibration", ""],
        "--calibration is empty",
    ),
    "export, two schemes": (
        ["export", "nowhere", "-o", "m.pte", "--weight-only-linear", "--linear-scheme", "8da4w"],
        "--linear-scheme 8da4w each say which scheme a linear has",
    ),
    "release, phones that are none": (
        ["release", "{checkpoint}", "-o", "out", "--phones", ""], "--phones names no phone",
    ),
    "evaluate, a phone that is two": (
        ["evaluate", "nowhere", "--as-on", "galaxy-s24"], "name galaxy-s24-exynos or galaxy-s24-s",
    ),
    "logits, the folder of the output is missing": (
        ["logits", "nowhere", "--tokens", "1", "-o", "{folder}/no/o.npy"], "there is no folder",
    ),
    "quantize, no such model": (["quantize", "nowhere.gguf", "-o", "c"], "nowhere.gguf"),
    "run, a system message without a chat": (
        ["run", "nowhere.pte", "--prompt", "x", "--system", "s"], "--system is for a chat template",
    ),
    "run, a template variable without a value": (
        ["run", "nowhere.pte", "--prompt", "x", "--chat", "--template-var", "thinking"],
        "--template-var thinking: expected NAME=VALUE",
    ),
    "run, a seed of what is not drawn": (
        ["run", "nowhere.pte", "--prompt", "x", "--seed", "0"], "--seed 0 has no effect with",
    ),
    "chat, a seed of what is not drawn": (["chat", "nowhere.pte", "--seed", "7"], "--seed 7 has"),
    "plan, a phone's GPU and a cache of the CPU's": (
        ["plan", "nowhere", "--target", "mali-g715", "--kv-cache", "int8"],
        "--kv-cache int8 is for --backend xnnpack",
    ),
    "run, no list of tools": (
        ["run", "nowhere.pte", "--prompt", "x", "--chat", "--tools", "{checkpoint}/params.json"],
        "expected a JSON list of tools",
    ),
    "run, no such program": (["run", "nowhere.pte", "--prompt", "x"], "nowhere.pte"),
    "run, not a program": (["run", "{checkpoint}/params.json", "--prompt", "x"], "params.json"),
    "logits, words for tokens": (
        ["logits", "{checkpoint}", "--tokens", "a,b", "-o", "{folder}/o.npy"], "--tokens is 'a,b'",
    ),
    "logits, no such token": (
        ["logits", "{checkpoint}", "--tokens", "1,999", "-o", "{folder}/o.npy"],
        "999 is not a token",
    ),
    "logits, longer than the context": (
        ["logits", "{checkpoint}", "--tokens", ",".join(["1"] * 65), "-o", "{folder}/o.npy"],
        "65 tokens, the program's context holds 64",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "c")


@pytest.fixture(scope="module")
def mistakes(checkpoint, tmp_path_factory):
    """Each of them made, and a folder of its own that it was to write to."""
    folders = {name: tmp_path_factory.mktemp("mistake") for name in MISTAKES}
    calls = [
        [text.format(checkpoint=checkpoint, folder=folders[name]) for text in arguments]
        for name, (arguments, _) in MISTAKES.items()
    ]
    done = in_one_process(calls)
    return {name: (one, folders[name]) for name, one in zip(MISTAKES, done, strict=True)}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(name, mistakes):
    done, folder = mistakes[name]
    assert MISTAKES[name][1] in refused(done)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_read_only_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"^-o \S+m\.pte: cannot be written.* read-only"):
        check_output(tmp_path / "m.pte", "-o")


# What each command reads, and that is not there: {folder} is, and {file} in it.
MISSING = [
    ["quantize", "nowhere.gguf", "-o", "{folder}/c"],
    ["convert", "nowhere", "{folder}/c"],
    ["convert", "{folder}", "{folder}/c", "--params", "nowhere.json"],
    ["export", "nowhere", "-o", "{folder}/m.pte"],
    ["export", "{folder}", "-o", "{folder}/m.pte", "--params", "nowhere.json"],
    ["export", "{folder}", "-o", "{folder}/m.pte", "--scheme-plan", "nowhere.toml"],
    ["plan", "nowhere"],
    ["plan", "{folder}", "--scheme-plan", "nowhere.toml"],
    ["run", "nowhere.pte", "--prompt", "x"],
    ["run", "{file}", "--prompt", "x", "--tokenizer", "nowhere.json"],
    ["chat", "nowhere.pte"],
    ["chat", "{file}", "--tokenizer", "nowhere.json"],
    ["chat", "{file}", "--file", "nowhere.txt"],
    ["serve", "nowhere.pte"],
    ["serve", "{file}", "nowhere.pte"],
    ["serve", "{file}", "--tokenizer", "nowhere.json"],
    ["logits", "nowhere", "--tokens", "1", "-o", "{folder}/o.npy"],
    ["inspect", "nowhere.pte"],
    ["retarget", "nowhere.pte", "--slim", "-o", "{folder}/m.pte"],
    ["doctor", "nowhere.pte"],
    ["verify", "nowhere.pte", "{folder}"],
    ["verify", "{file}", "nowhere"],
    ["evaluate", "{file}", "nowhere.pte"],
    ["evaluate", "{folder}", "--reference", "nowhere"],
    ["evaluate", "{folder}", "--text", "nowhere.txt"],
    ["release", "nowhere", "-o", "{folder}/r"],
    ["diagnose", "nowhere"],
    ["diagnose", "{folder}", "--text", "nowhere.txt"],
    ["explain", "nowhere.txt", "--program", "{file}", "--prompt", "x"],
    ["explain", "{text}", "--program", "nowhere.pte", "--prompt", "x"],
    ["explain", "{text}", "--program", "{file}", "--expected", "nowhere.json"],
    ["explain", "{text}", "--program", "{file}", "--prompt", "x", "--tokenizer", "nowhere.json"],
]


def test_what_is_missing_is_refused_before_torch_is_imported(tmp_path):
    (tmp_path / "m.pte").write_bytes(bytes(4) + b"ET12")
    code = """
import json, sys
from quatrain import cli
for arguments in json.load(sys.stdin):
    sys.argv = ["quatrain", *arguments]
    try:
        cli.main()
    except SystemExit as left:
        print(arguments[0], left.code, "torch" in sys.modules)
"""
    paths = {"folder": tmp_path, "file": tmp_path / "m.pte", "text": __file__}
    asked = [[text.format(**paths) for text in arguments] for arguments in MISSING]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(asked), capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [f"{command} 2 False" for command, *_ in MISSING], (
        done.stderr
    )
    messages = done.stderr.splitlines()
    assert len(messages) == len(MISSING)
    assert all(message.startswith("error: nowhere") for message in messages), messages
    assert {command for command, *_ in MISSING} == set(COMMANDS) - {"devices", "selftest"}
    assert list(tmp_path.iterdir()) == [tmp_path / "m.pte"]


def test_debug_shows_the_traceback():
    done = quatrain("export", "nowhere", "-o", "m.pte", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_the_seeds_script_exports_like_the_verb(checkpoint, tmp_path):
    # The command first, which leaves the script a template.
    asked = ["export", str(checkpoint), "-o", str(tmp_path / "command.pte"), "--weight-only-linear"]
    command = invoked(asked)
    assert command.exit_code == 0, command.output
    assert "29 x et_vk.linear_q4gsw" in command.stdout
    said = command.stdout.splitlines()[-1]
    assert said == shlex.join(["next:", "quatrain", "verify", asked[3], str(checkpoint)])
    seed = quatrain(
        "--checkpoint", checkpoint / "model.safetensors", "--params", checkpoint / "params.json",
        "--output", tmp_path / "seed.pte", "--weight-only-linear", "--json",
        module="quatrain.export_llm_backbone",
    )  # fmt: skip
    assert seed.returncode == 0, seed.stderr
    report = json.loads(seed.stdout)
    assert {row["kernel"] for row in report["linears"]} == {"et_vk.linear_q4gsw"}
    assert len(report["linears"]) == 29
    assert report["bytes"] == (tmp_path / "seed.pte").stat().st_size
    assert report["seconds"] and report["peak_rss_bytes"] > 0
    assert (tmp_path / "command.pte").read_bytes() == (tmp_path / "seed.pte").read_bytes()


def test_what_makes_something_says_how_to_go_on(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = tiny.programs["8da4w"]
    for words, said in (
        (["convert", tiny.checkpoint, "an int4"], "export 'an int4' -o 'an int4.pte'"),
        (["convert", tiny.checkpoint, "--", "-x"], "export ./-x -o ./-x.pte"),
        (["retarget", program, "-o", "m.pte", "--linear-scheme", "weight-only"], "doctor m.pte"),
    ):
        assert invoked(words).stdout.splitlines()[-1] == f"next: quatrain {said}"


def test_logits_of_a_checkpoint(checkpoint, tmp_path):
    import numpy as np

    asked = ["logits", str(checkpoint), "--tokens", "1,2,3", "-o", str(tmp_path / "o.npy")]
    done = invoked(asked)
    assert done.exit_code == 0, done.output
    rows = np.load(tmp_path / "o.npy")
    assert rows.shape == (3, 128) and rows.dtype == np.float32


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_out_of_memory_is_one_line(error, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as left:
        exit_cleanly(fail)
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("error: out of memory; close other programs")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "other permissions"),
        (errno.ENAMETOOLONG, "give the name of a file or folder"),
    ],
)
def test_a_disk_that_refuses_is_one_line(number, advice, capsys):
    def fail():
        raise OSError(number, os.strerror(number), "some/file")

    with pytest.raises(SystemExit) as left:
        exit_cleanly(fail)
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.startswith(f"error: some/file: {os.strerror(number)}; ")
    assert advice in said and said.count("\n") == 1


def test_other_errors_of_the_system_are_not_taken_for_it():
    def fail():
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        exit_cleanly(fail)


def test_a_terminal_without_a_character_gets_it_escaped(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr("sys.stdout", terminal)
    exit_cleanly(lambda: print("4 × 2 → 8"))
    assert terminal.buffer.getvalue() == b"4 \xd7 2 \\u2192 8\n"


def test_completion_of_the_module_is_for_the_command():
    told = {"_QUATRAIN_COMPLETE": "complete_bash", "COMP_WORDS": "quatrain qu", "COMP_CWORD": "1"}
    said = subprocess.run(
        [sys.executable, "-m", "quatrain"], capture_output=True, text=True, env=os.environ | told
    )
    assert said.stdout.split() == ["quantize"]


def test_what_takes_seconds_says_what_it_waits_for(tiny: Tiny, tmp_path: Path) -> None:
    program = tiny.programs["8da4w"]
    retarget = ["retarget", program, "--slim", "-o", tmp_path / "slim.pte"]
    for words, said in (
        (["run", program, "--prompt", "w5", "--max-new-tokens", "1"], "load and prefill"),
        (["run", program, "--prompt", "w5", "--max-new-tokens", "1", "--json"], "load and prefill"),
        (["chat", program, "--max-new-tokens", "1"], "load the program"),
        (["plan", tiny.checkpoint], "plan"),
        (retarget, "convert the program"),
        ([*retarget, "--json"], "convert the program"),
    ):
        done = invoked(words, input="w5")
        assert done.exit_code == 0 and done.stderr.startswith(f"  {said} "), done.stderr
    done = invoked(["convert", tiny.checkpoint, tmp_path / "int4"])  # and plans what it wrote
    assert done.stderr.splitlines()[-1].startswith("  plan "), done.stderr


def test_what_comes_before_any_work_is_said_where_it_is_slow(capsys: pytest.CaptureFixture[str]):
    with said_where_slow("import torch", 60):
        pass
    assert capsys.readouterr().err == ""
    with said_where_slow("import torch", 0):
        said = ""
        for _ in range(6000):  # another thread says it
            time.sleep(0 if said else 0.01)
            said = said or capsys.readouterr().err
    assert said.split() == ["import", "torch", "0", "s", "..."]


def test_an_ascii_locale_takes_utf_8():
    said = subprocess.run(
        [sys.executable, "-m", "quatrain", "inspect", "größe.pte"], capture_output=True,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert said.returncode == 2
    assert said.stderr.decode() == "error: größe.pte: cannot be read: No such file or directory\n"


def test_bytes_that_are_not_text_give_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quatrain", "run", "gr\udcf6sse.pte"])
    with pytest.raises(SystemExit) as left:
        exit_cleanly(lambda: print(sys.argv[2].encode()))
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert (
        said.startswith(r"error: 'gr\udcf6sse.pte' is not UTF-8; rename") and said.count("\n") == 1
    )


@pytest.mark.parametrize("columns", [20, 40, 79, 80])
def test_a_narrow_terminal_shows_options_whole(columns):
    for words in ([], *([command] for command in COMMANDS)):
        shown = invoked([*words, "--help"], env={"COLUMNS": str(columns)}).stdout
        assert "\N{HORIZONTAL ELLIPSIS}" not in shown, (words, shown)
        assert words != ["export"] or "--weight-only-linear" in shown


@pytest.mark.parametrize("columns", [20, 40])
def test_a_narrow_terminal_shows_tables_as_lines(columns):
    """Where a letter of each word would stand in a line of its own."""
    program = artifact("peer-8da4w-fp32")
    shown = invoked(["inspect", program], env={"COLUMNS": str(columns)}).stdout
    for line in ("layers 0-1\n  role: q\n  shape: 64×64\n", "operator et_vk.linear_dq8ca_q4gsw\n"):
        assert line in shown
    assert "\N{BOX DRAWINGS HEAVY VERTICAL}" not in shown  # between headers


def test_what_verbs_do_is_whole_in_a_narrow_terminal():
    shown = invoked(["--help"], env={"COLUMNS": "40"}).stdout
    assert "output (correct, a defect, or a mistake), and the fix." in " ".join(shown.split())


def test_an_example_is_broken_between_words_alone():
    shown = invoked(["convert", "--help"], env={"COLUMNS": "60"}).stdout
    assert {"hf://owner/llama-gptq", "llama-int4"} <= set(shown.split())


def test_a_wrong_option_value_gives_our_own_message():
    shown = invoked(["quantize", "m", "-o", "c", "--method", "x"], env={"COLUMNS": "200"}).stderr
    assert "'--method': 'x' is not one of 'gptq', 'distill', 'rtn'" in shown


@pytest.mark.parametrize("module", ["quatrain", "export_llm_backbone"])
def test_ctrl_c_while_the_command_line_is_imported(tmp_path, module):
    """As the script begins, where typer's import is as long as it takes to press the keys."""
    press = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(100): pass\n"
    (tmp_path / "typer.py").write_text(press)
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][module]
    package, function = entry.split(":")
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    run = f"{heard}; import {package}, sys; sys.exit({package}.{function}())"
    finished = subprocess.run(
        [sys.executable, "-c", run], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
    )  # fmt: skip
    assert finished.returncode == 130
    assert finished.stderr == "error: interrupted; nothing half written is left\n"


def test_a_terminal_of_unknown_width_shows_all(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    exit_cleanly(lambda: Console().print("a table"))
    assert capsys.readouterr().out == "a table\n"


def test_nothing_is_collected_as_python_ends():
    code = """
import atexit, gc
from quatrain.cli import exit_cleanly
atexit.register(lambda: print(gc.get_freeze_count() > 0))
exit_cleanly(lambda: None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n", "all objects are looked through once more as Python ends"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_and_kill_leave_nothing_half_written(number, tmp_path):
    code = """
import os, signal, sys, time
from pathlib import Path
from quatrain import cli
from quatrain.atomic_files import whole_file

number = int(sys.argv[2])
signal.signal(number, signal.SIG_DFL)  # nohup has one of them ignored

def half(prog_name):
    with whole_file(Path(sys.argv[1])) as file:
        file.write_text("half")
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), number)  # as timeout and shells send it twice
            time.sleep(0.1)

cli.build_app = lambda: half
cli.main()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "m.pte"), str(int(number))]
    assert subprocess.run(command).returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_verbs_are_imported_is_one_line(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("quatrain.cli.build_app", interrupted)
    monkeypatch.setattr("quatrain.cli.clean_up_when_ended", lambda: None)
    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; nothing half written is left\n"


def test_ctrl_c_in_a_destructor_is_not_lost():
    code = """
import signal, time
from quatrain import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it

class Released:
    def __del__(self):
        raise KeyboardInterrupt

def work(prog_name):
    Released()
    for _ in range(600):  # by turns: Python hears of it when a sleep is over
        time.sleep(0.1)

cli.build_app = lambda: work
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        130,
        "error: interrupted; nothing half written is left\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["inspect", str(artifact("peer-8da4w-fp32-emb4")), "--json"],
        *thorough([["devices"], ["devices", "--json"]]),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_full_or_closed_output_gives_no_traceback(arguments):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "quatrain", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    expected = "error: the output cannot be written: No space left on device"
    assert (done.returncode, _without_stages(done.stderr)) == (2, [expected])
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, _without_stages(done.stderr)) == (1, [])


def _without_stages(stderr: str) -> list[str]:
    """Its lines but those of stages, which a machine under load prints: they begin with spaces."""
    return [line for line in stderr.splitlines() if not line.startswith("  ")]


def test_cores_are_left_to_executorch(shared, monkeypatch):
    on_the_cpu, vulkan = shared_tiny_xnnpack(shared), artifact("peer-8da4w-fp32-emb4")
    for models, stated, expected in (
        ([on_the_cpu], None, "1"), ([on_the_cpu], "3", "3"), ([on_the_cpu, vulkan], None, None),
    ):  # fmt: skip
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if stated is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", stated)
        leave_cores_to_executorch(models)
        assert os.environ.get("OMP_NUM_THREADS") == expected


def test_the_word_smollm2_is_measured_against_and_a_folder_called_so_goes_before_it(
    checkpoint, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    fetched = []
    monkeypatch.setattr("quatrain.smollm2.fetch_smollm2", lambda: fetched.append(1) or checkpoint)
    asked = ["release", str(checkpoint), "-o", "out", "--reference", "smollm2", "--dry-run"]
    assert "smollm2" not in str(invoked(asked).exception) and fetched == [1]
    (tmp_path / "smollm2").mkdir()
    for arguments in (asked, ["quantize", "smollm2", "-o", "out"], ["evaluate", "smollm2"]):
        assert "smollm2: " in str(invoked(arguments).exception)
    assert fetched == [1]
