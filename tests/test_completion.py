"""Completion in a shell: what a shell asks, and what it is answered."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quatrain.cli import COMMANDS

SCRIPTS = Path(sys.executable).parent  # where pip puts `quatrain`


def complete(line: str, shell: str = "bash") -> list[str]:
    """The lines that a shell gets when its user asks for more at the end of `line`."""
    program, *words = line.split(" ")
    name = program.replace("-", "_").upper()
    asked = {
        f"_{name}_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line, "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    done = subprocess.run(
        [SCRIPTS / program], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def test_verbs() -> None:
    assert complete("quatrain ") == list(COMMANDS)
    assert complete("quatrain ex") == ["export", "explain"]


def test_options() -> None:
    assert complete("quatrain export c --weight") == ["--weight-only-linear"]
    assert {"--json", "--debug", "--help"} < set(complete("quatrain run m.pte --"))


def test_values() -> None:
    from quatrain.runtime.defects import EmulatedDefect
    from quatrain.runtime.devices import DEVICES

    assert complete("quatrain run m.pte --device ") == list(DEVICES)
    assert complete("quatrain verify m.pte c --device ") == list(DEVICES)
    assert complete("quatrain run m.pte --emulate ") == list(EmulatedDefect)
    assert complete("quatrain export c --backend x") == ["xnnpack"]
    assert complete("quatrain export c --target mali-g71") == ["mali-g710", "mali-g715"]
    assert complete("quatrain doctor m.pte --device llv") == ["llvmpipe"]
    assert complete("quatrain doctor m.pte --runtime 1.0") == ["1.0"]
    assert complete("quatrain evaluate c --scheme ") == ["8da4w", "weight-only"]
    assert complete("quatrain retarget m.pte --linear-scheme w") == ["weight-only"]
    assert complete("quatrain retarget m.pte --zero-point-dtype i") == ["int8"]
    assert complete("quatrain quantize m --group-size ") == ["16", "32", "64", "128", "256"]
    assert complete("quatrain convert m c --embedding int") == ["int8", "int4"]
    assert complete("export_llm_backbone --activation-dtype ") == ["fp32", "fp16"]


def test_what_is_a_file_is_left_to_the_shell() -> None:
    assert complete("quatrain inspect mo") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_show_what_a_value_is(shell: str) -> None:
    shown = "\n".join(complete("quatrain export c --target mali-g715", shell))
    assert "mali-g715" in shown and "Immortalis-G715" in shown


def test_bash_completes_with_the_script_that_it_is_shown() -> None:
    """As in a terminal, but for the key."""
    script = """
        eval "$(quatrain --show-completion)"
        COMP_WORDS=(quatrain run m.pte --device r) COMP_CWORD=4
        _quatrain_completion quatrain
        echo "${COMPREPLY[@]}"
    """
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("reference\n", "")


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("no folder")
    command = f"{SCRIPTS}/quatrain --install-completion; exit $?"
    done = subprocess.run(
        ["bash", "-c", command], env=os.environ | {"HOME": str(home)}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {home}") and "--show-completion" in done.stderr


def test_completing_imports_no_torch() -> None:
    code = """
import sys
from quatrain.cli import main
sys.argv = ["quatrain"]
try:
    main()
finally:
    print(*[m for m in ("torch", "executorch", "wgpu") if m in sys.modules], file=sys.stderr)
"""
    words = {"COMP_WORDS": "quatrain export c --target ", "COMP_CWORD": "4"}
    asked = words | {"_QUATRAIN_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True
    )
    assert "mali-g715" in done.stdout and done.stderr.strip() == ""
