"""Work on several cores: in order, bounded, and of the same bytes however many there are."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.models.tiny_checkpoint import write_checkpoint
from tests.support.thorough import thorough

from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.template import constants
from quatrain.export.template.constants import in_order
from quatrain.export.template.template import cached_template
from quatrain.int4 import Scheme

EXPORT = "from quatrain.cli import main; main()"


def test_results_come_in_order_and_few_wait():
    lock, computed, taken = threading.Lock(), [], []

    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        with lock:
            computed.append(item)
        return item

    for result in in_order(work, range(50), workers=3):
        taken.append(result)
        assert len(computed) - len(taken) < 6
    assert taken == list(range(50))


def test_what_one_item_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // item, [2, 1, 0, 3]))


@pytest.mark.parametrize("backend", ["vulkan", *thorough(["xnnpack"])])
def test_the_number_of_cores_does_not_change_the_program(backend, tmp_path, monkeypatch):
    checkpoint = write_checkpoint(tmp_path / "c")
    programs = []
    for cores in (1, 7):
        monkeypatch.setattr(constants.os, "cpu_count", lambda cores=cores: cores)
        export_checkpoint(checkpoint, tmp_path / "m.pte", ExportOptions(backend=backend))
        programs.append((tmp_path / "m.pte").read_bytes())
    assert programs[0] == programs[1]


def test_two_that_make_one_template_at_once_both_get_it(tmp_path, monkeypatch):
    """Whole, and nothing else is left."""
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path / "cache"))
    opened = open_checkpoint(write_checkpoint(tmp_path / "c"))
    backbone = build_backbone(opened.config, opened.tensors)
    both = threading.Barrier(2, timeout=60)

    def make(_twin: Backbone, path: Path) -> None:
        both.wait()
        path.write_bytes(b"half")
        both.wait()
        path.write_bytes(b"a template")

    def take(_: int) -> Path:
        return cached_template(backbone, Scheme.DYNAMIC_INT8, {}, make)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(take, range(2))
    assert one == other and one.read_bytes() == b"a template"
    assert list((tmp_path / "cache" / "templates").iterdir()) == [one]


@pytest.mark.thorough
def test_two_exports_at_once_do_not_disturb_each_other(tmp_path, monkeypatch):
    """Of one architecture, with an empty cache: both make the template, and either serves."""
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path / "cache"))
    checkpoint = write_checkpoint(tmp_path / "c")
    command = [sys.executable, "-c", EXPORT, "export", str(checkpoint), "-o"]
    running = [
        subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE)
        for name in ("a.pte", "b.pte")
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "b.pte").read_bytes()
    assert len(list((tmp_path / "cache" / "templates").iterdir())) == 1
