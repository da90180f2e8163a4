"""Printing of results, for people and for machines."""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quatrain.errors import Interrupted
from quatrain.json_files import finite

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_json(value: Any) -> None:
    """Print `value` as JSON, alone on standard output, for a machine to read.

    Numbers that are not finite, which JSON cannot represent, become null.
    """
    print(json.dumps(finite(value), indent=2, default=str))


def plain_console() -> "Console":
    """A console that prints texts unchanged: names of files, or generated texts, may have brackets,
    which rich would treat as markup."""
    from rich.console import Console

    return Console(markup=False, emoji=False)


def print_table(table: "Table") -> None:
    """Print `table` with each cell whole: what a column has no room for goes on in a line below,
    where rich would cut the names of operators. In a terminal too narrow for that, as lines."""
    console = plain_console()
    if console.width < _least_width(table):
        _print_lines(table)
        return
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)


def print_columns(rows: Sequence[Sequence[str]], names: int = 1) -> None:
    """Print `rows`, the first of them what the columns are called, no wider than they need: the
    first `names` columns to the left, figures to the right. One that says nothing is left out."""
    columns = []
    for number, cells in enumerate(zip(*rows, strict=True)):
        if any(cells[1:]):
            side, width = "<" if number < names else ">", max(map(len, cells))
            columns.append([f"{cell:{side}{width}}" for cell in cells])
    for row in zip(*columns, strict=True):
        print("  ".join(row).rstrip())


def _least_width(table: "Table") -> int:
    """Columns in which words of eight letters are whole."""
    cells = [[column.header, *column.cells] for column in table.columns]
    words = [[len(word) for cell in each for word in str(cell).split()] for each in cells]
    return sum(min(8, max(each, default=0)) + len("| ") + 1 for each in words) + 1


def _print_lines(table: "Table") -> None:
    """Each row as lines of what its cells are called and are, below its first cell."""
    if table.title:
        print(table.title)
    headers = [" ".join(str(column.header).split()) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = (", ".join(str(cell).splitlines()) for cell in row)
        if not table.show_header:
            print(f"  {first}: {', '.join(others)}")
            continue
        print(f"{headers[0]} {first}".strip())
        for header, cell in zip(headers[1:], others, strict=True):
            if cell:
                print(f"  {header}: {cell}" if header else f"  {cell}")


def print_next(*words: object) -> None:
    """Print the next command to run with the result; a path that looks like an option is
    escaped."""
    said = [f"./{one}" if isinstance(one, Path) and str(one)[0] == "-" else one for one in words]
    print(f"next: quatrain {shlex.join(map(str, said))}")


def warn_of_an_idle_defect(
    model: Path, emulate: str | None, as_on: str | None, tokens: int | None = None
) -> None:
    """Say where the defect changed nothing, on prompts of `tokens`: what was asked for did not
    show."""
    from quatrain.program import open_program
    from quatrain.runtime.emulatable import why_unchanged
    from quatrain.targets.as_on import arithmetic_as_on

    if emulate is None:
        return
    reason = why_unchanged(open_program(model), emulate, tokens, arithmetic_as_on(as_on))
    if reason:
        print(f"warning: {reason}", file=sys.stderr)


@contextmanager
def hint_at_resuming(kept: Path) -> Iterator[None]:
    """An interrupt says that the same command goes on with what is in the folder `kept`, if that is
    there."""
    try:
        yield
    except KeyboardInterrupt:
        if not kept.exists():
            raise
        raise Interrupted(
            f"interrupted; the same command resumes the work, which is kept in {kept}"
        ) from None
