"""What a reader of a program's verdict should know."""

from collections.abc import Mapping

from quatrain.export.xnnpack.positive_scales import RoundedAgain
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.runtime.runner import Runner
from quatrain.verify.checks.half_sums import NOTE
from quatrain.verify.program_info import ProgramInfo


def notes_on(passed: bool, rounded: RoundedAgain, info: ProgramInfo, halves: float) -> list[str]:
    """Of rounding: in sums of float16, of which the longest may be off by `halves`, in caches and
    of weights."""
    notes = [NOTE] if halves and passed else []
    if info.int8_kv_cache:
        notes.append("Keys and values are in int8, in the backbone beside the program too")
    if rounded.rounded:
        notes.append(f"{rounded}. The backbone beside it was rounded alike")
    return notes


def notes_on_later_texts(runners: Mapping[str, Runner | None], text: list[int]) -> list[str]:
    """Whether a program goes on with the state of an earlier text where `text` begins. Clears the
    context of its runner."""
    on_executorch = [each for each in runners.values() if isinstance(each, ExecutorchRunner)]
    if not any(runner.goes_on(text[0]) for runner in on_executorch):
        return []
    return [
        "A text at position 0 goes on with the state of the text before it, and ExecuTorch's "
        "runner leaves that there (`reset`): an app must load the program again for each text, as "
        "is done here, or the program be exported with `quatrain export`, whose programs begin "
        "anew"
    ]
