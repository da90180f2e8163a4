"""The command line `quatrain`: parses, prints, exits. Its commands are in `quatrain.commands`."""

import _thread
import atexit
import errno
import gc
import importlib
import importlib.metadata
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeGuard

import typer

from quatrain.commands._plain_command import PlainCommand, PlainGroup
from quatrain.errors import INTERRUPTED, QuatrainError
from quatrain.text_files import is_utf8

COMMANDS = (
    "quantize",
    "convert",
    "plan",
    "export",
    "run",
    "chat",
    "serve",
    "logits",
    "inspect",
    "retarget",
    "doctor",
    "devices",
    "selftest",
    "verify",
    "evaluate",
    "diagnose",
    "release",
    "explain",
)

HELP_OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def build_app() -> typer.Typer:
    """The command line with every command registered; heavy imports happen only when a command
    runs."""
    app = typer.Typer(
        name="quatrain",
        cls=PlainGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings=HELP_OPTIONS,
        help="Export int4 language models to on-device programs, and prove them right.",
    )
    app.callback()(_options)
    for command in COMMANDS:
        module = importlib.import_module(f"quatrain.commands.{command}")
        app.command(command, cls=PlainCommand)(getattr(module, command))
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"quatrain {importlib.metadata.version('quatrain')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What `quatrain` takes before a command."""


def main() -> None:
    """Entry point of the installed `quatrain` script."""
    restart_in_utf8()
    sys.unraisablehook = _interrupt_again
    clean_up_when_ended()
    # This also covers an interrupt while commands are imported. `python -m quatrain` uses the same
    # name, for which completion is installed.
    exit_cleanly(lambda: build_app()(prog_name="quatrain"))


def restart_in_utf8() -> None:
    """If Python treats everything as ASCII (LC_ALL=C and PYTHONUTF8=0), restart the same command in
    UTF-8, as Python itself does for LC_ALL=C: torch's own files are in UTF-8, as are the names of
    files and the texts that users give."""
    options = ["-X", "utf8"]
    if sys.getfilesystemencoding() == "ascii" and sys.orig_argv[1:3] != options:
        os.execv(sys.executable, [sys.executable, *options, *sys.orig_argv[1:]])


def exit_cleanly(app: Callable[[], object]) -> None:
    """Run `app` and leave with its exit code; an error is one message unless `--debug` is given."""
    # Else Python looks through all of torch for cycles before it ends: a second after the verdict.
    atexit.register(gc.freeze)
    _open_closed_streams()
    _write_any_character()
    _forget_no_columns()
    if sys.platform == "win32":
        _fail("Quatrain needs Linux or macOS; on Windows use it in WSL 2 (wsl --install)", 2)
    try:
        try:
            app()
        finally:
            # Flush here, where a failure is seen, rather than as Python ends.
            print(end="", flush=True)
    except (KeyboardInterrupt, SystemExit) as error:
        # typer makes the one the other, with this code.
        if isinstance(error, SystemExit) and error.code != 130:
            raise
        _fail(INTERRUPTED, 130)
    except QuatrainError as error:
        _fail(str(error), error.exit_code, error)
    except UnicodeEncodeError as error:
        _fail_on_bytes(error)
        raise
    except (MemoryError, OSError, RuntimeError) as error:
        if _is_out_of_memory(error):
            _fail("out of memory; close other programs or use a smaller model", 1, error)
        if not _is_full_or_closed_stream(error):
            _fail_to_install_completion(error)
            _fail_on_a_disk(error)
            raise
        _forget_output()
        if error.errno == errno.EPIPE:
            sys.exit(1)
        _fail(f"the output cannot be written: {error.strerror}", 2, error)


def clean_up_when_ended() -> None:
    """Have a closed terminal and `kill` leave nothing half written, as Ctrl-C does; a second such
    signal, a second later, ends the process at once. Sooner it is the same one: `timeout` and
    shells send it to a process and to its group."""
    if sys.platform == "win32":  # there exit_cleanly says no
        return
    began: list[float] = []

    def leave(number: int, _frame: object) -> None:
        if not began:
            began.append(time.monotonic())
            sys.exit(128 + number)
        if time.monotonic() - began[0] > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has the first ignored
            signal.signal(number, leave)


def _interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C in a destructor, such as one of wgpu's, is ignored by Python: have it once more."""
    if ignored.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(ignored)


def _open_closed_streams() -> None:
    """Discard output to a stream that was closed (`2>&-`).

    Otherwise Python has None for it, and the next opened file gets its number, and the output of
    native code with it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It gets the lowest free number, thus the stream's own.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _write_any_character() -> None:
    """A character that the terminal's encoding does not have is written as Python escapes it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _forget_no_columns() -> None:
    """COLUMNS=0, which says that the width is not known, has rich write nothing at all."""
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]


def _is_out_of_memory(error: BaseException) -> bool:
    """Python, the system and torch, for a processor and for a GPU, each have their own error."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    of_torch = "can't allocate memory", "CUDA out of memory"
    return isinstance(error, MemoryError) or any(said in str(error) for said in of_torch)


def _fail_to_install_completion(error: BaseException) -> None:
    if isinstance(error, OSError) and "--install-completion" in sys.argv:
        why = f"{error.filename}: cannot be written: {error.strerror}"
        _fail(f"{why}; put the output of --show-completion where your shell reads it", 2, error)


def _fail_on_a_disk(error: BaseException) -> None:
    """Where a disk is full or refuses, and nobody who knew what is made there has said it."""
    advice = {
        errno.ENOSPC: "free some space, and run it again",
        errno.EDQUOT: "free some space, and run it again",
        errno.EROFS: "name an output on another disk",
        errno.EACCES: "it needs another owner, or other permissions",
        errno.ENAMETOOLONG: "give the name of a file or folder",  # such as a text in place of one
    }
    if isinstance(error, OSError) and error.filename and error.errno in advice:
        _fail(f"{str(error.filename)[:300]}: {error.strerror}; {advice[error.errno]}", 2, error)


def _fail_on_bytes(error: UnicodeEncodeError) -> None:
    """Where what was given is not UTF-8, and nobody who knew what it names has said it."""
    given = [one for one in sys.argv if not is_utf8(one)]
    if given:
        named = ascii(given[0])
        _fail(f"{named} is not UTF-8; rename the file, or give a text in UTF-8", 2, error)


def _is_full_or_closed_stream(error: BaseException) -> TypeGuard[OSError]:
    """Whether writing to the standard output failed; an error of a file would name the file."""
    return (
        isinstance(error, OSError)
        and error.filename is None
        and error.errno in (errno.ENOSPC, errno.EPIPE)
    )


def _forget_output() -> None:
    """Send what is still to be written to the standard output nowhere: Python will try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, exit_code: int, error: BaseException | None = None) -> None:
    if error is not None and "--debug" in sys.argv:
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)
