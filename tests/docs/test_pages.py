"""What the pages say about this repository is so: files, commands, names and measured rows."""

import pkgutil
import re
import shlex
from pathlib import Path
from textwrap import indent

import pytest
import typer
from tests.support.models.families import ROWS
from tests.support.models.peers import TOLERANCE
from tests.support.paths import DOCS, ROOT
from tests.support.snippets import PAGES, snippets

from quatrain.cli import COMMANDS, build_app

_FOLDERS = ("src", "tests", "docs", "benchmarks", "examples")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks, outside of fenced blocks."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return _CODE.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page: Path) -> None:
    for code in inline_code(page):
        if code.split("/")[0] not in _FOLDERS or " " in code:
            continue
        path = code.partition("::")[0]
        assert list(ROOT.glob(path)), f"{page.name}: there is no {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_named_have_these_options(page: Path) -> None:
    group = typer.main.get_command(build_app())
    for code in inline_code(page):
        words = shlex.split(code) if code.startswith("quatrain ") else []
        if len(words) < 2 or words[1].startswith(("-", "<", ".")):
            continue
        assert words[1] in COMMANDS, f"{page.name}: {code}"
        command = group.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        asked = {word.partition("=")[0] for word in words[2:] if re.match("--?[a-z]", word)}
        assert asked <= known | {"--help"}, f"{page.name}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_are_named_are_there(page: Path) -> None:
    for code in inline_code(page):
        if re.fullmatch(r"quatrain(\.\w+)+", code):
            assert pkgutil.resolve_name(code), f"{page.name}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quoted_code_is_in_its_file(page: Path) -> None:
    for snippet in snippets(page):
        if snippet.quoted:
            whole = (ROOT / snippet.quoted).read_text(encoding="utf-8")
            assert snippet.text in whole or indent(snippet.text, " " * 4) in whole, snippet.line


def test_every_row_of_families_is_measured() -> None:
    page = (DOCS / "families.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| `.*\| (\d\.\de-\d\d) \|$", page, re.M)
    documented = dict.fromkeys(row.documented for row in ROWS.values())
    assert [name for name, _ in rows] == list(documented)
    assert all(float(error) < TOLERANCE for _, error in rows)
