"""A release's tasks: made once, made again bit for bit, here, in processes and on a cluster."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.models.tiny_programs import shared_tiny, shared_tiny_xnnpack
from tests.support.release_speed import as_fast_each_time
from tests.support.releases import assert_same_files, copied, merged_spec, release_again, report_of
from tests.support.thorough import thorough

from quatrain.errors import InputError
from quatrain.release.release import make_release
from quatrain.release.tasks import functions
from quatrain.release.tasks.store import Store, Task, code_digest, held_alone
from quatrain.release.tasks.workers import Workers, make_all
from quatrain.stages import Stages


@pytest.fixture
def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words, **arguments) -> dict:
        raise AssertionError("made again")

    for kind in functions.FUNCTIONS:
        monkeypatch.setitem(functions.FUNCTIONS, kind, refuse)


@pytest.mark.usefixtures("nothing_is_made")
def test_a_second_run_does_nothing(tiny_release: Path) -> None:
    out = tiny_release / "out"
    before = {file: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()}
    assert release_again(tiny_release).failures == []
    assert {file: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()} == before


def test_what_another_build_made_is_made_again(tmp_path: Path, monkeypatch) -> None:
    task = Task("doctor", "known defects", {}, {})
    package = tmp_path / "quatrain"
    package.mkdir()
    monkeypatch.setattr("quatrain.__file__", str(package / "__init__.py"))
    keys = set()
    for code in ("1", "2", "2"):
        (package / "__init__.py").write_text(code)
        code_digest.cache_clear()
        keys.add(task.key)
    code_digest.cache_clear()
    assert len(keys) == 2


def test_it_is_made_again_bit_for_bit(tiny_release: Path, tmp_path: Path) -> None:
    """From what the release says of itself, elsewhere, all that it is made of being elsewhere."""
    for of, to in (("model", "m"), ("reference", "r"), ("out", "sent")):
        shutil.copytree(tiny_release / of, tmp_path / to, ignore=shutil.ignore_patterns(".work"))
    toml = tmp_path / "sent" / "release.toml"
    assert str(tiny_release) not in toml.read_text()
    with pytest.raises(
        InputError, match=r"sha256:[0-9a-f]{64} of a model .* give its path: --reference"
    ):
        merged_spec(toml, {})
    spec = merged_spec(toml, {"reference": str(tmp_path / "r")})
    make_release(tmp_path / "m", tmp_path / "again", spec)
    assert_same_files(tmp_path / "again", tiny_release / "out")


def test_another_speed_changes_no_file_that_ships(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that the manifest says tell it."""
    copy = copied(tiny_release, tmp_path)
    release_again(copy)
    before = {file.name: file.read_bytes() for file in (copy / "out").iterdir() if file.is_file()}
    shutil.rmtree(next((copy / "out" / ".work").glob("speed-*")))
    monkeypatch.setitem(functions.FUNCTIONS, "speed", lambda *_, **__: {"not_measured": "no time"})
    release_again(copy)
    manifest = json.loads((copy / "out" / "manifest.json").read_text())
    assert manifest["tell_speed"] == ["report.html", "report.json", "report.md"]
    for name in set(manifest["files"]) - set(manifest["tell_speed"]):
        assert (copy / "out" / name).read_bytes() == before[name]
    assert "not measured: no time" in (copy / "out" / "report.html").read_text()


@pytest.fixture(scope="module")
def exported(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release with exports of its own, in this process: `not_exported_again` comes later."""
    out = tmp_path_factory.mktemp("exported") / "out"
    spec = merged_spec(tiny_release / "release.toml", {})
    with pytest.MonkeyPatch.context() as patch:  # this comes before what is patched for each test
        patch.setitem(functions.FUNCTIONS, "speed", as_fast_each_time)
        return make_release(tiny_release / "model", out, spec, 1).folder


@pytest.mark.parametrize("jobs", thorough([2]))
def test_in_processes_it_is_the_same(
    tiny_release: Path,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jobs: int,
) -> None:
    monkeypatch.setitem(functions.FUNCTIONS, "export", functions.export)
    spec = merged_spec(tiny_release / "release.toml", {})
    stages = Stages()
    make_release(tiny_release / "model", tmp_path / "out", spec, jobs, stages)
    assert_same_files(tmp_path / "out", exported)
    together = [name for name in stages.seconds if name.endswith(", 2 at a time")]
    assert together and all(" and " in name and name.count(".pte") == 1 for name in together)


def test_what_takes_long_says_how_far_it_is(tiny_release: Path) -> None:
    heard = json.loads((tiny_release / "progress.json").read_text())
    programs = [file["file"] for file in report_of(tiny_release)["files"]]
    titles = ["verify {}", "what {} answers", "measure {}"]
    long = {title.format(one) for title in titles for one in programs} | {"measure the layers"}
    assert long <= heard.keys()
    for name in long:
        assert len(heard[name]) > 1 and heard[name] == sorted(heard[name])
        assert heard[name][-1] == pytest.approx(1.0)


def test_a_task_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(functions.FUNCTIONS, "expect", lambda folder, advance: advance(0.5) or {})
    heard: list[tuple[str, float]] = []
    stages = Stages(progress=lambda name, part, left: heard.append((name, part)))
    task = Task("expect", "what it answers", {}, {}, advances=True)
    make_all(Store(tmp_path), [task], Workers(1, 0), stages)
    assert heard == [("what it answers", 0.5)]


@pytest.mark.parametrize("working", thorough([2]))
def test_on_a_cluster_that_loses_a_machine_it_is_the_same(
    tiny_release: Path, exported: Path, tmp_path: Path, working: int
) -> None:
    """So many tasks are being made, one on each machine, when one of those is killed."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install quatrain[ray]")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    doomed = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    out = tmp_path / "out"

    def kill_when_both_work() -> None:
        while len(list(out.glob(".work/export-*.????????"))) < working:
            time.sleep(0.05)
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill_when_both_work, daemon=True)
    killer.start()
    try:
        spec = merged_spec(tiny_release / "release.toml", {})
        make_release(tiny_release / "model", out, spec, ray=cluster.address)
        assert not killer.is_alive()
        assert sum(node["Alive"] for node in ray.nodes()) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert_same_files(out, exported)


def test_interrupted_it_leaves_nothing_half_and_goes_on(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = merged_spec(tiny_release / "release.toml", {"phones": ("pixel-6",)})
    begun: list[str] = []

    def counted(kind: str, function: Callable) -> Callable:
        def call(*words, **arguments) -> dict:
            begun.append(kind)
            if begun.count("verify") == 1 and kind == "verify":
                raise KeyboardInterrupt
            return function(*words, **arguments)

        return call

    for kind, function in list(functions.FUNCTIONS.items()):
        monkeypatch.setitem(functions.FUNCTIONS, kind, counted(kind, function))
    with pytest.raises(KeyboardInterrupt):
        make_release(tiny_release / "model", tmp_path / "out", spec)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [".work"]
    found = make_release(tiny_release / "model", tmp_path / "out", spec)
    assert (begun.count("export"), begun.count("verify")) == (1, 2)
    assert [file["file"] for file in found.report["files"]] == ["tiny-cpu.pte"]
    # What is damaged is made again; what is no longer asked for goes.
    (program,) = (tmp_path / "out" / ".work").glob("export-*/model.pte")
    program.write_bytes(b"other")
    (result,) = (tmp_path / "out" / ".work").glob("verify-*/result.json")
    result.write_text('{"files": {}}')
    (tmp_path / "out" / ".work" / "digests.json").write_text("[1]")
    again = make_release(tiny_release / "model", tmp_path / "out", spec)
    assert again.report == found.report
    assert not (tmp_path / "out" / "tiny-8da4w-fp32.pte").exists()


def test_a_model_that_is_changed_meanwhile_is_refused(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(tiny_release, tmp_path)

    def change(folder: Path, **arguments) -> dict:
        with (copy / "model" / "params.json").open("a") as params:
            params.write("\n")
        return {}

    monkeypatch.setitem(functions.FUNCTIONS, "doctor", change)
    spec = merged_spec(copy / "release.toml", {})
    with pytest.raises(InputError, match="model: changed while the release was made; run"):
        make_release(copy / "model", tmp_path / "new", spec)


def test_jobs_here_are_not_for_a_cluster(tiny_release: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="--jobs 2 applies to this machine, but with --ray auto the"
    ):
        make_release(tiny_release / "model", tmp_path / "out", jobs=2, ray="auto")
    with pytest.raises(InputError, match="--jobs is 0, expected 1 or more"):
        make_release(tiny_release / "model", tmp_path / "out", jobs=0)


def test_without_a_cluster_it_says_so(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    spec = merged_spec(tiny_release / "release.toml", {})
    with pytest.raises(InputError, match=r"--ray needs Ray: pip install 'quatrain\[ray\]'"):
        make_release(tiny_release / "model", tmp_path / "out", spec, ray="auto")


def test_a_folder_that_another_release_works_in_is_refused(
    tiny_release: Path, tmp_path: Path
) -> None:
    copy = copied(tiny_release, tmp_path)
    refused = pytest.raises(
        InputError, match="another release is being written there; wait until it"
    )
    with held_alone(copy / "out" / ".work"), refused:
        release_again(copy)
    assert release_again(copy).failures == []


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "out").touch()  # a file, below which there is no folder
    refused = pytest.raises(InputError, match=r"-o .*out: cannot be written: .*; choose another")
    with refused, held_alone(tmp_path / "out" / ".work"):
        pass


@pytest.mark.thorough
def test_processes_end_with_the_one_that_asked_for_them() -> None:
    code = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from quatrain.release.tasks.workers import begin_worker
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), begin_worker, (1, ()))
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = Path("/proc") / done.stdout.strip()
    end = time.monotonic() + 60
    while worker.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert done.returncode == -9 and not worker.exists()


@pytest.mark.thorough
def test_ctrl_c_pressed_twice_ends_the_processes(tmp_path: Path) -> None:
    """A terminal sends it to all of them."""
    slow = "import time\n\ndef slow(folder):\n    (folder / 'begun').touch()\n    time.sleep(600)\n"
    (tmp_path / "slow.py").write_text(slow)
    code = """
import signal, sys
from pathlib import Path
from slow import slow
from quatrain.release.tasks.store import Store, Task
from quatrain.release.tasks.workers import FUNCTIONS, Workers, make_all
from quatrain.stages import Stages
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    FUNCTIONS["slow"] = slow
    tasks = [Task("slow", "slow", {"number": number}, {}) for number in range(2)]
    make_all(Store(Path(sys.argv[1])), tasks, Workers(2, 0), Stages())
"""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    begun = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "work"], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip
    while begun.poll() is None and len(list(tmp_path.glob("work/*/begun"))) < 2:
        time.sleep(0.05)
    for _ in range(2):
        os.killpg(begun.pid, signal.SIGINT)
        time.sleep(0.05)
    said = begun.communicate()[1]
    assert said.count("Traceback") == 1 and said.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("device", ["reference", "executorch"])
def test_verifying_says_how_far_it_is_to_its_end(shared: Path, tmp_path: Path, device: str) -> None:
    tiny, heard = shared_tiny(shared), []
    program = tiny.programs["8da4w"] if device == "reference" else shared_tiny_xnnpack(shared)
    functions.FUNCTIONS["verify"](
        tmp_path, program=program, checkpoint=tiny.checkpoint, device=device, advance=heard.append
    )
    assert heard == sorted(heard) and heard[-1] == 1
