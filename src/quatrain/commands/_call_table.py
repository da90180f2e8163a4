"""The table of `quatrain inspect` that says what a call costs the phone."""

from rich.table import Table

from quatrain.human_bytes import human_bytes
from quatrain.program.inspect.dispatches import CallCost


def call_table(calls: list[CallCost]) -> Table:
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
            (str(cost.dispatches), human_bytes(cost.nbytes)) if cost else ("", "") for cost in costs
        ]
        table.add_row(kind, *(text for pair in cells for text in pair))
    table.add_section()
    totals = [(str(call.dispatches), human_bytes(call.nbytes)) for call in calls]
    table.add_row("all", *(text for pair in totals for text in pair))
    return table


def _heading(call: CallCost) -> str:
    if call.tokens == 1:
        return f"decode at {call.start}"
    return f"prompt of {call.tokens}"
