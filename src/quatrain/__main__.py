"""`python -m quatrain`, and where the installed scripts begin.

What a command imports takes half a second. Ctrl-C in it ends the process with the message and the
exit code that it has later, in place of Python's traceback.
"""

import importlib
import os
import signal
from types import ModuleType

from quatrain.errors import INTERRUPTED


def main() -> None:
    """Entry point of the script `quatrain`."""
    _imported("quatrain.cli").main()


def export_llm_backbone() -> None:
    """Entry point of the script `export_llm_backbone`."""
    _imported("quatrain.export_llm_backbone").main()


def _imported(module: str) -> ModuleType:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return importlib.import_module(module)  # a shell's background job ignores it
    signal.signal(signal.SIGINT, _leave)
    imported = importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return imported


def _leave(*_: object) -> None:
    os.write(2, f"error: {INTERRUPTED}\n".encode())
    os._exit(130)


if __name__ == "__main__":
    main()
