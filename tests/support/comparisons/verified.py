"""Programs held against their checkpoint, which is right, and against others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.support.models.tiny_programs import write_word_tokenizer

from quatrain.program import open_program
from quatrain.verify.verify import VerifyReport, verify_program

Tensors = dict[str, torch.Tensor]
_TEXT = "w5 w17 w40 w9 w22 w61 w33"


def assert_verified(program: Path, checkpoint: Path) -> VerifyReport:
    """That `program`, one of ours, holds and computes what `checkpoint` means."""
    report = verified(program, checkpoint)
    problems = [one for one in report.packed if one.problem]
    assert report.passed, (problems, [check.problems for check in report.devices])
    return report


def assert_one_number_is_told(program: Path, checkpoint: Path, tensor: str) -> None:
    """That `program` is right, and wrong beside a checkpoint with 1 % more in the last number of
    `tensor`."""
    names = {one.name for one in assert_verified(program, checkpoint).packed}
    assert tensor in names

    def change(tensors: Tensors) -> None:
        tensors[tensor].view(-1)[-1] *= 1.01

    assert wrong_beside(program, checkpoint, change) == [tensor]


def wrong_beside(program: Path, checkpoint: Path, change: Callable[[Tensors], None]) -> list[str]:
    """Whose constants `program` has wrong beside `checkpoint` after a `change` of its tensors."""
    other = Path(shutil.copytree(checkpoint, program.parent / "other"))
    tensors = load_file(other / "model.safetensors")
    change(tensors)
    save_file(tensors, other / "model.safetensors")
    return [one.name for one in verified(program, other).packed if one.problem]


def exchange_experts(tensors: Tensors) -> None:
    """The last two of the first layer that has any."""
    name = next(name for name in sorted(tensors) if ".experts." in name)
    experts = name[: name.index(".experts.") + len(".experts.")]
    for name in tensors:
        if name.startswith(experts):
            tensors[name] = torch.cat([tensors[name][:-2], tensors[name][-2:].flip(0)])


def verified(
    program: Path, checkpoint: Path, text: str = _TEXT, new_tokens: int = 3
) -> VerifyReport:
    """`program` held against `checkpoint` over a `text` of words, and as many tokens more."""
    words = program.parent / "words"
    words.mkdir(exist_ok=True)
    write_word_tokenizer(words)
    device = "executorch" if _is_for_the_cpu(program) else "reference"
    return verify_program(
        program, checkpoint, (device,), (text,), new_tokens, tokenizer=words / "tokenizer.json"
    )


def _is_for_the_cpu(program: Path) -> bool:
    return not open_program(program).graphs
