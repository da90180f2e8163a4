"""Named stages and the memory they report."""

import subprocess
import sys

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
