"""A page as a browser has it: headless Chromium, where it is installed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install)"
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _run(folder: Path, *options: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *options]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=120, env=os.environ
    )
    return done.stdout


def screenshot(page: Path, folder: Path) -> bytes:
    """The page as PNG, on a desktop; `folder` is for what the browser writes."""
    picture = folder / "page.png"
    _run(folder, "--window-size=1100,1400", f"--screenshot={picture}", page.as_uri())
    return picture.read_bytes()


def dom(page: Path, folder: Path) -> str:
    """The page's tree as HTML, as the browser understood it."""
    return _run(folder, "--dump-dom", page.as_uri())


def width_on_a_phone(page: Path, folder: Path) -> int:
    """How wide the page is, in pixels, on a phone of 360: what scrolls by itself not counted."""
    measured = "document.title = frame.contentDocument.documentElement.scrollWidth"
    outer = folder / "phone.html"
    outer.write_text(
        f'<iframe id="frame" src="{page.as_uri()}" style="width: 360px; height: 800px; border: 0">'
        f"</iframe><script>frame.onload = () => {{ {measured} }}</script>"
    )
    options = ("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom")
    found = re.search(r"<title>(\d+)</title>", _run(folder, *options, outer.as_uri()))
    assert found
    return int(found[1])
