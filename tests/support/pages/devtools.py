"""A page in headless Chromium, told what to do by its DevTools protocol.

Unlike `--dump-dom`, this can wait for what a page fetches. Source:
https://chromedevtools.github.io/devtools-protocol/, over the pipe of `--remote-debugging-pipe`.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.pages.browser import CHROMIUM, FLAGS


class _Navigated(Exception):
    """The page made way for another one meanwhile, as the empty one does for the first."""


class Page:
    """A page that is open."""

    def __init__(self, reading: int, writing: int, address: str):
        self._answers, self._writing = os.fdopen(reading, "rb", buffering=0), writing
        self._held, self._calls, self._session = b"", 0, {}
        target = self._call("Target.createTarget", url=address)
        attached = self._call("Target.attachToTarget", **target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def run(self, script: str) -> Any:
        """What the JavaScript `script` gives, once it is there if it is a promise."""
        done = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait_for(self, condition: str) -> Any:
        """What the JavaScript `condition` gives, as soon as it is true."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(_Navigated):
                if found := self.run(f"(() => {{ try {{ return {condition} }} catch {{ }} }})()"):
                    return found
            time.sleep(0.02)
        raise TimeoutError(f"{condition}: {self.run('document.body.innerText')}")

    def width_at(self, width: int) -> int:
        """How wide the page is, in pixels, in a window of `width`."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
            mobile=True,
        )  # fmt: skip
        return self.run("document.documentElement.scrollWidth")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params} | self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._calls:
            pass  # an event
        if "context was destroyed" in str(answer.get("error")):
            raise _Navigated
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            part = self._answers.read(1 << 16)
            assert part, "the browser has ended"
            self._held += part
        message, _, self._held = self._held.partition(b"\0")
        return json.loads(message)


@contextmanager
def opened(address: str, profile: Path) -> Iterator[Page]:
    """The page at `address`, in a browser that keeps its files in the folder `profile`."""
    assert CHROMIUM
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # It reads from its descriptor 3 and writes to 4, which may be taken by others here.
    low = [
        (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10), to)
        for fd, to in ((theirs_in, 3), (theirs_out, 4))
    ]
    options = ("--remote-debugging-pipe", f"--user-data-dir={profile}")
    command = [CHROMIUM, *FLAGS, *options, "about:blank"]
    quiet = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
    mapped = [quiet, *((os.POSIX_SPAWN_DUP2, fd, to) for fd, to in low)]
    process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=mapped)
    for fd in (theirs_in, theirs_out, *(fd for fd, _ in low)):
        os.close(fd)
    page = None
    try:
        page = Page(ours_in, ours_out, address)
        yield page
    finally:
        os.close(ours_out)  # at which it ends
        if page:
            page._answers.close()
        os.waitpid(process, 0)
