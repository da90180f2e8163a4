"""Help that shows a flag as it is written: `--json`, where typer shows `--json <bool>`, and every
option in full in a narrow terminal, where typer's boxes cut it. Input that typer accepts silently
is refused: an option of one value given twice, an empty path."""

import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from quatrain.errors import InputError

_BOXED = 80  # columns that the boxes of help need: the longest option beside its words


class PlainCommand(TyperCommand):
    """A command whose flags are shown without a type, whose options may be given only once, and
    whose paths must not be empty."""

    def get_params(self, ctx: Any) -> Any:
        """Also of `--help` and `--install-completion`, which typer adds by itself."""
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """In boxes where these are wide enough."""
        _leave_boxes_where_narrow(self)
        super().format_help(ctx, formatter)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Wrap only at spaces: an example that is wrapped at a hyphen is another command."""
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            formatter.write_paragraph()
            with formatter.indentation():
                indent = " " * formatter.current_indent
                text = textwrap.fill(
                    paragraph, formatter.width, initial_indent=indent, subsequent_indent=indent,
                    break_on_hyphens=False, break_long_words=False,
                )  # fmt: skip
                formatter.write(f"{text}\n")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, but no given option is ignored silently."""
        if not ctx.resilient_parsing:
            values, _, given = self.make_parser(ctx).parse_args(args=list(args))
            _check_once(given)
            _check_paths(self.get_params(ctx), values)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic's
            raise


class PlainGroup(TyperGroup):
    """The same for the options before a command."""

    def get_params(self, ctx: Any) -> Any:
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """In boxes where these are wide enough."""
        _leave_boxes_where_narrow(self)
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Without boxes, the description of a command is shown in full, where typer would cut
        it."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, " ".join((command.help or "").split("\n\n")[0].split()))
                    for name, command in self.commands.items()
                ]
            )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, but an option that belongs after the command is an error that says so."""
        command = next((one for one in args if one in self.commands), None)
        known = {name for one in self.get_params(ctx) for name in one.opts}
        if command and not ctx.resilient_parsing:
            for one in args[: args.index(command)]:
                if one.startswith("-") and one.split("=")[0] not in known:
                    raise InputError(
                        f"{one} is before the command {command}; give options after the "
                        f"command, as in `quatrain {command} ... {one}`"
                    )
        return super().parse_args(ctx, args)


def _leave_boxes_where_narrow(command: TyperCommand | TyperGroup) -> None:
    if shutil.get_terminal_size().columns < _BOXED:
        command.rich_markup_mode = None


def _check_once(given: Sequence[Any]) -> None:
    """Refuse an option of one value that is given twice, where typer would use the last one."""
    for one in given:
        if _takes_one_value(one) and given.count(one) > 1:
            raise InputError(f"{_called(one)} is given {given.count(one)} times; give it once")


def _check_paths(parameters: Sequence[Any], values: Mapping[str, Any]) -> None:
    """Refuse an empty path, which Python treats as the current folder: a shell makes it from a
    variable that is not set."""
    for one in parameters:
        value = values.get(one.name)
        if "" in (value if isinstance(value, list | tuple) else (value,)) and _is_path(one):
            raise InputError(
                f"{_called(one)} is empty, expected a path; is a variable of the shell not set?"
            )


def _is_path(parameter: Any) -> bool:
    """Whether it is a path; every argument of a command is one, even if it may be
    hf://owner/name."""
    annotation = parameter.type_descriptor.annotation
    return parameter.param_type_name == "argument" or Path in (annotation, *get_args(annotation))


def _called(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    return max(parameter.opts, key=len)


def _takes_one_value(parameter: Any) -> bool:
    option = parameter.param_type_name == "option"
    return option and not (parameter.is_flag or parameter.multiple)


def _plain(parameters: Sequence[Any]) -> Sequence[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
