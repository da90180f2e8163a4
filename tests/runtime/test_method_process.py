"""ExecuTorch's runtime ends its process on damaged programs: an error that says so."""

import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from executorch.runtime import Runtime
from tests.support.command_line import invoked
from tests.support.edited_methods import Edit, edited_method
from tests.support.programs import TOKENS, artifact

from quatrain.errors import InputError
from quatrain.program.file.flatbuffer import Record
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.runtime.method_process import MethodProcess

PROGRAM = artifact("peer-xnnpack-8da4w")
PROMPT, START = torch.tensor([TOKENS]), torch.tensor([0])


def number_for_tensor(plan: Record) -> None:
    """The runtime aborts as it takes the kernel's argument for a tensor."""
    call = next(
        each.instr_args
        for each in plan.chains[0].instructions
        if each.instr_args.table == "KernelCall"
        and plan.operators[each.instr_args.op_index].name == "aten::mul"
    )
    plan.values[call.args[0]].val = Record(table="Int", int_val=1)


def no_memory(plan: Record) -> None:
    """The runtime writes to where nothing is."""
    for value in plan.values:
        if getattr(value.val, "allocation_info", None):
            value.val.allocation_info = None


CRASHES = {
    number_for_tensor: r"crashes \(SIGABRT\) as it computes a call of inputs of shapes "
    r"\[\[1, 9\], \[1\]\]; it says: In function toTensor.* is not a Tensor",
    no_memory: r"crashes \(SIGSEGV\) as it computes",
}


@pytest.mark.parametrize(("edit", "message"), CRASHES.items(), ids=["aborts", "segfaults"])
def test_a_crash_is_an_error_of_the_program(edit: Edit, message: str, tmp_path: Path) -> None:
    path = edited_method(PROGRAM, edit)(tmp_path)
    with pytest.raises(InputError, match=rf"edited\.pte: the ExecuTorch runtime {message}.*again$"):
        ExecutorchRunner(path).forward(PROMPT, START)


def test_what_a_command_says_of_a_crash(tmp_path: Path) -> None:
    path = edited_method(PROGRAM, number_for_tensor)(tmp_path)
    result = invoked(["logits", path, "--tokens", "1,2", "-o", tmp_path / "l.npy"])
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2


def test_a_runner_goes_on_in_another_process(tmp_path: Path) -> None:
    """Once it is told that the context is gone."""
    runner = ExecutorchRunner(PROGRAM)
    expected = runner.forward(PROMPT, START)
    runner._method._process.kill()
    with pytest.raises(InputError, match=r"was killed as it computes a call .* memory is short"):
        runner.forward(PROMPT, START)
    with pytest.raises(InputError, match=r"ended at an earlier call.*begin anew \(reset\)"):
        runner.forward(PROMPT, START)
    runner.reset()
    assert torch.equal(runner.forward(PROMPT, START), expected)


def test_an_interrupt_leaves_the_answers_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ExecutorchRunner(PROGRAM)
    expected = [runner.forward(one, START) for one in (PROMPT, PROMPT[:, :3])]

    def interrupted(timeout: float | None) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner._method._connection, "poll", interrupted)
        runner.forward(PROMPT, START)
    for prompt, logits in zip((PROMPT[:, :3], PROMPT), reversed(expected), strict=True):
        assert torch.equal(runner.forward(prompt, START), logits)


def test_the_process_ends_with_its_runner() -> None:
    for_one, for_other = (ExecutorchRunner(PROGRAM) for _ in range(2))
    process = for_one._method._process
    del for_one
    assert process.exitcode is not None
    process = for_other._method._process
    for_other._method._connection.close()  # as the system does where the runner's process is killed
    process.join(20)
    assert process.exitcode == 0


class Parallel:
    """In place of ExecuTorch's runtime, its program and its method: attention by OpenMP's
    threads."""

    def load_program(self, path: Path) -> "Parallel":
        return self

    def load_method(self, name: str) -> "Parallel":
        return self

    def execute(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.rand(1000, 1000).exp().max()]


class Waiting(Parallel):
    """For a thread that waits for this one, as where both log at once."""

    def execute(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        threading.Event().wait()
        return []


class Busy(Parallel):
    def execute(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            pass
        return [torch.ones(())]


def test_what_waits_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes is not, however long."""
    monkeypatch.setattr("quatrain.runtime.method_process._LOOK", 0.1)
    monkeypatch.setattr(Runtime, "get", Waiting)
    with pytest.raises(
        InputError, match=r"hangs as it computes a call of inputs of shapes .*again$"
    ):
        MethodProcess(PROGRAM).execute([PROMPT])
    monkeypatch.setattr(Runtime, "get", Busy)
    assert MethodProcess(PROGRAM).execute([PROMPT]) == 1


def test_threads_that_are_not_forked_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def ring(*_: object) -> NoReturn:
        raise TimeoutError

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.rand(1000, 1000).exp()
    monkeypatch.setattr(Runtime, "get", Parallel)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        process = MethodProcess(PROGRAM)
        signal.alarm(60)
        assert process.execute([PROMPT]) <= torch.e
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        torch.set_num_threads(threads)
