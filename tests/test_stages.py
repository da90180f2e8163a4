"""Named stages and the memory they report."""

import contextlib
import ctypes
import io
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import quatrain.stages as stages_module
from quatrain.commands.printing.progress import shown_stages
from quatrain.stages import Stages, peak_rss_bytes


def test_peak_memory_is_this_process_own_and_not_that_of_its_launcher():
    ballast = bytearray(b"x" * 300_000_000)
    code = "from quatrain.stages import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert peak_rss_bytes() > len(ballast) > int(done.stdout) > 1_000_000


def test_a_stage_entered_twice_adds_up_and_tells_its_listener():
    heard = []
    stages = Stages(lambda name, seconds: heard.append((name, seconds is None)))
    for _ in range(2):
        with stages("pack"):
            pass
    assert heard == [("pack", True), ("pack", False)] * 2
    assert list(stages.seconds) == ["pack"]


def test_a_stage_says_how_far_it_is_and_what_is_left():
    heard = []
    stages = Stages(progress=lambda *what: heard.append(what))
    with stages("pack") as advance:
        advance(0.0)
        advance(0.5)
        advance(1.0)
    assert [(name, fraction) for name, fraction, _ in heard] == [("pack", 0.5), ("pack", 1.0)]
    assert heard[0][2] > heard[1][2] == 0.0


def test_the_stages_of_a_stage_say_how_far_it_is():
    heard = []
    inner = Stages.of_parts(4, heard.append)
    with inner("open"):
        pass
    with inner("run") as advance:
        advance(0.5)
    assert heard == [0.25, 0.375, 0.5]


def test_each_second_of_a_silent_stage_is_reported_and_none_after_it(monkeypatch):
    monkeypatch.setattr(stages_module, "TICK", 0.01)
    heard = []
    stages = Stages(elapsed=lambda *what: heard.append(what))
    with contextlib.suppress(ZeroDivisionError), stages("lower to Vulkan"):
        for _ in range(1000):
            if heard:
                break
            time.sleep(0.01)
        raise ZeroDivisionError
    assert heard and heard[0][0] == "lower to Vulkan" and heard[0][1] > 0
    told = len(heard)
    time.sleep(0.05)
    assert len(heard) == told


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_the_seconds_of_the_innermost_silent_stage(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    stages = shown_stages()
    assert stages.elapsed
    with stages("load the model"), stages("measure which runtime is faster") as advance:
        stages.elapsed("load the model", 3.0)
        stages.elapsed("measure which runtime is faster", 2.0)
        time.sleep(0.21)
        advance(0.5)
        stages.elapsed("measure which runtime is faster", 4.0)
    shown = [line.strip() for line in terminal.getvalue().splitlines()]
    assert "measure which runtime is faster          2 s ..." in shown
    assert any(line.startswith("measure which runtime is faster        50%") for line in shown)
    assert not any("3 s ..." in line or "4 s ..." in line for line in shown)


def test_an_overwritten_line_is_not_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    stages, name = (
        shown_stages(),
        "2 at a time: " + ", ".join(f"export m-{i}.pte" for i in range(9)),
    )
    assert stages.elapsed
    with stages(name) as advance:
        stages.elapsed(name, 2.0)
        time.sleep(0.21)
        advance(0.5)
    begun, waited, half, ended = terminal.getvalue().replace("\r", "\n").splitlines()
    assert max(map(len, (begun, waited, half))) < 60 and all("…" in one for one in (begun, half))
    assert "…       2 s ..." in waited and "50%, " in half and name in ended


def test_without_a_terminal_each_stage_is_a_line(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    stages = shown_stages()
    with stages("trace") as advance:
        advance(0.5)
    assert stream.getvalue().startswith("  trace ") and stream.getvalue().endswith(" s\n")
    assert stream.getvalue().count("\n") == 1


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows to progress, and to nothing else: a server may run beside the test."""
    seconds = [100.0]
    clock = SimpleNamespace(monotonic=lambda: seconds[0])
    monkeypatch.setattr("quatrain.commands.printing.progress.time", clock)
    return seconds


def test_without_a_terminal_a_long_stage_is_reported_at_intervals(monkeypatch, now):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    stages = shown_stages()
    with stages("measure") as advance:
        for second in range(1, 26):
            now[0] += 1
            stages.elapsed("measure", second)
        for percent in range(50, 80):
            now[0] += 1
            advance(percent / 100)
    shown = [line.split(maxsplit=2)[:2] for line in stream.getvalue().splitlines()]
    assert shown[:2] == [["measure", "10"], ["measure", "20"]]
    assert [percent for _, percent in shown[2:-1]] == ["54%,", "64%,", "74%,"]
    assert "\r" not in stream.getvalue()


def test_what_a_stage_said_too_soon_after_a_line_is_shown_later(monkeypatch, now):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    stages = shown_stages()
    with stages("quantize layers") as advance:
        for second in range(1, 40):
            now[0] += 1
            stages.elapsed("quantize layers", second)
            if second == 11:
                advance(0.25)
    shown = [" ".join(line.split()[:3]) for line in stream.getvalue().splitlines()]
    assert shown[:-1] == ["quantize layers 10", "quantize layers 25%,"]


# In a new process: the heap of one that other tests have run in already holds freed memory.
HEAP = """
import os
from pathlib import Path
from quatrain.stages import freed_memory_kept, return_freed_memory

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""

KEPT = """
before = resident_bytes()
with freed_memory_kept():
    block = bytearray(b"x" * 100_000_000)
    del block
    print(resident_bytes() - before)
print(resident_bytes() - before)
"""

RETURNED = """
blocks = [b"x" * 100_000 for _ in range(2000)]
kept = blocks[::100]  # the heap cannot end below the last of these
held = resident_bytes()
del blocks
return_freed_memory()
print(held - resident_bytes(), len(kept))
"""


def test_freed_memory_is_kept_for_the_next_tensor_and_then_goes_back() -> None:
    inside, after = _printed_of_heap("mallopt", KEPT)
    assert inside > 90_000_000 and after < 50_000_000


def test_freed_memory_between_what_is_used_goes_back() -> None:
    returned, kept = _printed_of_heap("malloc_trim", RETURNED)
    assert returned > 150_000_000 and kept == 20


def _printed_of_heap(function: str, code: str) -> list[int]:
    """The numbers that `code` prints of its process' heap; skips where the C library has no
    `function`."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), function):
        pytest.skip(f"the C library has no {function}")
    command = [sys.executable, "-c", HEAP + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]
