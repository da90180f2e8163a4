"""Help that shows a flag as it is written: `--json`, where typer shows `--json <bool>`, and every
option whole in a narrow terminal, where typer's boxes cut it; and an option that takes one value is
refused where it is given twice, of which typer takes the last."""

import shutil
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from quatrain.errors import InputError

_BOXED = 80  # columns that the boxes of help need: the longest option beside its words


class PlainCommand(TyperCommand):
    """A verb whose flags are shown without a type, and whose options count once."""

    def get_params(self, ctx: Any) -> Any:
        """Also of `--help` and `--install-completion`, which typer adds by itself."""
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """In boxes where these are wide enough."""
        if shutil.get_terminal_size().columns < _BOXED:
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, but that nothing given is ignored."""
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for one in given:
                if _takes_one_value(one) and given.count(one) > 1:
                    times = given.count(one)
                    raise InputError(
                        f"{max(one.opts, key=len)} is given {times} times; give it once"
                    )
        return super().parse_args(ctx, args)


class PlainGroup(TyperGroup):
    """The same of the options before a verb."""

    def get_params(self, ctx: Any) -> Any:
        return _plain(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, but that a verb's options before it are told where they belong."""
        verb = next((one for one in args if one in self.commands), None)
        known = {name for one in self.get_params(ctx) for name in one.opts}
        if verb and not ctx.resilient_parsing:
            for one in args[: args.index(verb)]:
                if one.startswith("-") and one.split("=")[0] not in known:
                    raise InputError(
                        f"{one} stands before {verb}, whose option it may be: options come after "
                        f"the verb, as in `quatrain {verb} ... {one}`"
                    )
        return super().parse_args(ctx, args)


def _takes_one_value(parameter: Any) -> bool:
    option = parameter.param_type_name == "option"
    return option and not (parameter.is_flag or parameter.multiple)


def _plain(parameters: Sequence[Any]) -> Sequence[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
