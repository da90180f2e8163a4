"""Help that shows a flag as it is written: `--json`, where typer shows `--json <bool>`."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A verb whose flags are shown without a type."""

    def get_params(self, ctx: Any) -> Any:
        """Also of `--help` and `--install-completion`, which typer adds by itself."""
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """The same of the options before a verb."""

    def get_params(self, ctx: Any) -> Any:
        return _plain(super().get_params(ctx))


def _plain(parameters: Sequence[Any]) -> Sequence[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
