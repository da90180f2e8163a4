"""Silences other packages on the user's terminal."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from quatrain.errors import InputError


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what torch, torchao and executorch log and warn while they load and lower."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@contextmanager
def native_output_held_back() -> Iterator[None]:
    """Keep what native code prints to standard error, and show it only where an unforeseen error
    needs explaining: an `InputError` says all itself. A process may have no standard error."""
    if sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except InputError:
            raise
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
