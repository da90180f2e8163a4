"""The fenced snippets of the documentation, and what runs them.

A fence says what becomes of it: `sh` and `python` are run by the tests, one page's in order and in
one folder; `console`, `kotlin` and `tsx` belong on another machine; `text` and `toml` are shown.
One with a `title="a/file"` quotes that file.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from tests.support.command_line import invoked
from tests.support.paths import DOCS, EXAMPLES, ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted(EXAMPLES.rglob("*.md")),
]
RUN = ("sh", "python")
SHOWN = ("console", "kotlin", "text", "toml", "tsx")
_FENCE = re.compile(r'^( *)```(\S*)(?: title="(\S+)")?[^\n]*\n(.*?)^\1```$', re.M | re.S)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of `page`, which begins at `line`; `quoted`: the file that it is part of."""

    page: Path
    line: int
    language: str
    quoted: str | None
    text: str


def snippets(page: Path) -> list[Snippet]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(
            page,
            line=text.count("\n", 0, found.start()) + 1,
            language=found[2],
            quoted=found[3],
            text=textwrap.dedent(found[4]),
        )
        for found in _FENCE.finditer(text)
    ]


def run_shell(snippet: Snippet, folder: Path) -> None:
    """Run each line of an `sh` block in the current folder, `folder`.

    A line's comment may end with the exit code to expect: `# exits with 1`.
    """
    for line in snippet.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        expected = int(found[1]) if (found := re.search(r"# .*exits with (\d)$", line)) else 0
        code, shown = _run_command(words, folder)
        assert code == expected, f"{snippet.page.name}:{snippet.line}: {line}\n{shown}"


def _run_command(words: list[str], folder: Path) -> tuple[int, str]:
    """(exit code, output). What takes long is run on less, or only looked at."""
    program, *arguments = words
    if program == "quatrain" and not arguments[0].startswith("-"):
        done = invoked(_smaller(arguments))
        return done.exit_code, f"{done.output}{done.exception}"
    if program == "quatrain":
        return _in_bash(words, folder)
    if program == "make":
        code, shown = _execute(["make", "-n", *arguments], ROOT)
        return code or int("warning" in shown), shown
    if program == "pip":
        return _check_requirements(arguments)
    if program == "python" and arguments[:2] == ["-m", "pytest"]:
        wanted = [part.partition("::")[0] for part in arguments[2:] if not part.startswith("-")]
        missing = [part for part in wanted if not (ROOT / part).exists()]
        return len(missing), f"there is no {missing}"
    if program == "python":
        return _check_script(arguments)
    return 1, f"the tests do not run {program}; give the fence another language"


def _smaller(arguments: list[str]) -> list[str]:
    if arguments[0] == "selftest":
        return [*arguments, "--kernel", "permute"]  # all of them run in tests/runtime/wgpu
    if arguments[0] == "quantize" and "--method" not in arguments:
        return [*arguments, "--method", "rtn"]
    if arguments[0] == "evaluate" and "--stride" not in arguments:
        return [*arguments, "--tokens", "48"]
    if arguments[0] == "export" and "--max-seq-len" in arguments:
        place = arguments.index("--max-seq-len") + 1
        return [*arguments[:place], "64", *arguments[place + 1 :]]
    if arguments[0] == "run":
        return [*arguments, "--max-new-tokens", "9"]
    return arguments


def _in_bash(words: list[str], home: Path) -> tuple[int, str]:
    """As in a terminal, in a home of its own."""
    command = shlex.join([f"{Path(sys.executable).parent}/{words[0]}", *words[1:]])
    return _execute(["bash", "-c", f"{command}; exit $?"], home, HOME=str(home))


def _execute(command: list[str], folder: Path, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def _check_requirements(arguments: list[str]) -> tuple[int, str]:
    """Whether what is to be installed is what this project asks for."""
    asked = [part for part in arguments if part != "install" and not part.startswith(("-", "."))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    known = [*project["dependencies"], *chain.from_iterable(extras)]
    named = {Requirement(one).name for one in known}
    wrong = [
        part
        for part in asked
        if part not in known and (Requirement(part).specifier or part not in named)
    ]
    return len(wrong), f"pyproject.toml does not ask for {wrong}"


def _check_script(arguments: list[str]) -> tuple[int, str]:
    """Whether a script of this repository is there and knows these options."""
    script, *rest = arguments
    source = (ROOT / script).read_text(encoding="utf-8")
    unknown = [part for part in rest if part.startswith("--") and f'"{part}"' not in source]
    return len(unknown), f"{script} does not know {unknown}"
