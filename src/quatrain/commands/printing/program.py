"""Prints a program, and the differences of two, for `quatrain inspect`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from quatrain.commands.printing.results import plain_console, print_table
from quatrain.human_bytes import human_bytes
from quatrain.program.inspect.diff import Difference, ProgramDiff
from quatrain.program.inspect.dispatches import CallCost
from quatrain.program.inspect.report import ProgramReport, counts_text, hidden_backends
from quatrain.program.methods import CONTEXT
from quatrain.short_lists import ranges
from quatrain.targets.doctor import Finding

_MOST_ROWS = 60  # of one table of differences


def print_report(report: ProgramReport) -> None:
    """Print the parts of a program."""
    console = plain_console()
    console.print(Text.assemble((str(report.program), "bold"), f"  {human_bytes(report.bytes)}"))
    for line in _delegate_lines(report):
        console.print(f"  {line}")
    console.print(f"  outside the delegate: {counts_text(report.outside) or 'nothing'}")
    if report.activation_dtype:
        console.print(
            f"  {report.activation_dtype} activations, {_context(report)}, "
            f"embedding {_embedding(report)}"
        )
    else:
        console.print(f"  {_context(report)}")
    if report.inputs:
        console.print(f"  inputs {', '.join(report.inputs)} → outputs {', '.join(report.outputs)}")
    if hidden := hidden_backends(report):
        console.print(f"  {_hidden_line(hidden)}")
    if report.external_constants:
        console.print(f"  not in it, and not shown: {external_text(report.external_constants)}")
    for line in _expert_lines(report):
        console.print(f"  {line}")
    if report.linears:
        print_table(_linear_table(report))
    if report.calls:
        print_table(_call_table(report.calls))
    print_table(_table("bytes", {k: human_bytes(n) for k, n in report.bytes_by_kind.items()}))
    for waste in report.waste:
        console.print(f"waste: {waste.what}, {human_bytes(waste.bytes)} ({waste.remedy})")
    if report.metadata:
        print_table(_table("metadata", {k: str(v) for k, v in report.metadata.items()}))


def external_text(constants: Sequence[str]) -> str:
    """How many constants are not in the program, for people."""
    count = len(constants)
    return f"{count} constant{'s' * (count > 1)} in a separate .ptd file"


def print_fatal(findings: Iterable[Finding]) -> None:
    """Print by what a program fails on every phone."""
    for finding in findings:
        print(f"fails on every phone: {finding}")


def _delegate_lines(report: ProgramReport) -> list[str]:
    """One a delegate, or for all of one backend where its format is not read."""
    lines: list[str] = []
    sizes: dict[tuple[str, str], list[int]] = {}
    for delegate in report.delegates:
        if delegate.operators is not None:
            method, backend = delegate.method, delegate.backend
            lines.append(f"{method}: {backend}, {delegate.operators} operators")
        else:
            sizes.setdefault((delegate.method, delegate.backend), []).append(delegate.bytes)
    for (method, backend), found in sizes.items():
        weights = report.bytes_by_kind.get(f"weights of {backend}", 0)
        size = human_bytes(sum(found) + weights)
        many = f"{len(found)} {backend} delegates" if len(found) > 1 else backend
        lines.append(f"{method}: {many}, {size}" + (" with their weights" if weights else ""))
    return lines


def _embedding(report: ProgramReport) -> str:
    layout = f", {report.embedding_layout}" if report.embedding_layout else ""
    return f"{report.embedding or 'none'}{layout}"


def _context(report: ProgramReport) -> str:
    shapes = "dynamic shapes" if report.dynamic_shapes else "static shapes"
    cache = report.kv_cache
    kept = f", KV cache {cache.dtype}, {human_bytes(cache.bytes)}" if cache else ""
    derived = report.context_from not in (None, CONTEXT)
    source = f" (by {report.context_from}; {CONTEXT} is not stated)" if derived else ""
    return f"context {report.context_length or 'unknown'}{source}, {shapes}{kept}"


def _expert_lines(report: ProgramReport) -> list[str]:
    """How mixtures of experts are computed."""
    layers: dict[int, list[int]] = {}
    for layer, count in report.experts.items():
        layers.setdefault(count, []).append(layer)
    lines = [
        f"{count} experts in layers {ranges(which)}, all computed for every token"
        for count, which in layers.items()
    ]
    if report.jumps:
        lines.append(f"{report.jumps} jumps: experts that no token of a call picks are skipped")
    return lines


def _linear_table(report: ProgramReport) -> Table:
    """One row per role, shape and kernel, with the layers that have it."""
    counts = ", ".join(f"{count} {scheme}" for scheme, count in report.schemes.items())
    zero_points = sorted({linear.zero_points for linear in report.linears if linear.zero_points})
    if zero_points:
        counts += f" ({' and '.join(zero_points)} zero points)"
    rows: dict[tuple[str, ...], list[int]] = {}
    for linear in report.linears:
        shape = f"{linear.out_features}×{linear.in_features}"
        group = str(linear.group_size or "")
        role = linear.name if linear.layer is None else linear.role
        key = (role, shape, linear.scheme, group, human_bytes(linear.bytes))
        rows.setdefault(key, []).extend([] if linear.layer is None else [linear.layer])
    table = Table(title=f"linears: {counts}", title_justify="left")
    for heading in ("layers", "role", "shape", "scheme", "group", "bytes each"):
        table.add_column(heading, justify="right" if heading == "bytes each" else "left")
    for (role, *cells), layers in rows.items():
        distinct = sorted(set(layers))
        each = len(layers) // max(len(distinct), 1)  # experts
        table.add_row(ranges(distinct), f"{each} × {role}" if each > 1 else role, *cells)
    return table


def _call_table(calls: list[CallCost]) -> Table:
    """A row for each kind of operator, two columns for each call."""
    table = Table(title="dispatches on a phone, and the bytes they touch", title_justify="left")
    table.add_column("operator")
    for call in calls:
        table.add_column(_heading(call), justify="right")
        table.add_column("", justify="right")
    kinds = dict.fromkeys(kind for call in calls for kind in call.operators)
    for kind in kinds:
        costs = [call.operators.get(kind) for call in calls]
        cells = [
            (str(cost.dispatches), human_bytes(cost.bytes)) if cost else ("", "") for cost in costs
        ]
        table.add_row(kind, *(text for pair in cells for text in pair))
    table.add_section()
    totals = [(str(call.dispatches), human_bytes(call.bytes)) for call in calls]
    table.add_row("all", *(text for pair in totals for text in pair))
    return table


def _heading(call: CallCost) -> str:
    """In two lines, which leave room for an operator's whole name in 80 columns."""
    if call.tokens == 1:
        return f"decode\nat {call.start}"
    return f"prompt\nof {call.tokens}"


def _merged(differences: list[Difference]) -> list[tuple[str, str, str]]:
    """Equal differences of the same linear in several layers, as one: 'layers.0-3.x'."""
    merged: dict[tuple[str, str, str], list[int]] = {}
    for difference in differences:
        head, _, rest = difference.what.partition(".")
        layer, _, name = rest.partition(".")
        inside = head == "layers" and layer.isdecimal()
        key = (name if inside else difference.what, difference.first, difference.second)
        merged.setdefault(key, []).extend([int(layer)] if inside else [])
    return [
        (f"layers {ranges(layers)}: {name}" if layers else name, first, second)
        for (name, first, second), layers in merged.items()
    ]


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def print_diff(diff: ProgramDiff, first: Path, second: Path) -> None:
    """Print what differs between the programs at `first` and `second`."""
    console = plain_console()
    sections = {
        "summary": diff.summary,
        "outside the delegates": diff.outside,
        "operators": diff.operators,
        "operators, by place": diff.calls,
        "bytes": diff.bytes_by_kind,
        "linears": diff.linears,
        "constants": diff.constants,
    }
    for title, differences in sections.items():
        if differences:
            table = Table("", str(first), str(second), title=title, title_justify="left")
            rows = _merged(differences)
            for row in rows[:_MOST_ROWS]:
                table.add_row(*row)
            print_table(table)
            if len(rows) > _MOST_ROWS:
                console.print(f"and {len(rows) - _MOST_ROWS} more; --json lists all")
    if diff.compared_weights:
        equal, all_ = diff.equal_weights, diff.compared_weights
        console.print(f"{equal} of {all_} linears have the same weights, byte for byte")
    if diff.hidden:
        console.print(_hidden_line(diff.hidden))
    if diff.external_constants:
        what = external_text(diff.external_constants)
        console.print(f"compared by name and size, not by value: {what}")
    if diff.same:
        console.print("nothing differs")


def _hidden_line(backends: list[str]) -> str:
    return f"the contents of {' and '.join(backends)} delegates are not shown"
