"""Programs that are loaded, each under the name that clients ask for it by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from quatrain.errors import InputError
from quatrain.program import Program, open_program
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.emulatable import emulatable_defects
from quatrain.runtime.load import ProgramRunner, is_vulkan, load_runner, require_tokens_to_logits
from quatrain.stages import Stages
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.text_files import require_utf8_name
from quatrain.tokenizer import Tokenizer, chosen_tokenizer, end_ids


@dataclass(frozen=True)
class ServedModel:
    """A program on a runtime, and its tokenizer.

    Attributes:
        name: What clients call it: the file's name without ".pte", and for a variant that computes
            with a defect "+" and the defect's id.
        created: When its file was written, in seconds since 1970.
        runner: The program on its runtime.
        tokenizer: What its prompts are encoded with.
        context: How many tokens its KV cache holds.
        vocab_size: How many tokens it knows, or None if it does not say.
        emulates: The id of the defect that it computes with, or None.
        as_on: The GPU or phone whose arithmetic it computes in, or None for the usual.
        can_emulate: The defects that change what it computes; none of a variant with one.
        with_defect: Loads it once more, to compute with the defect of that id.
    """

    name: str
    created: int
    runner: ProgramRunner
    tokenizer: Tokenizer
    context: int
    vocab_size: int | None
    emulates: str | None = None
    as_on: str | None = None
    can_emulate: tuple[EmulatedDefect, ...] = ()
    with_defect: "Callable[[str], ServedModel] | None" = None

    @property
    def eos_ids(self) -> list[int]:
        """The tokens that end its texts."""
        return end_ids(self.tokenizer.eos_ids, self.runner.metadata)


def load_models(
    programs: Sequence[Path],
    *,
    tokenizer: Path | None = None,
    device: str = "auto",
    emulate: Sequence[str] = (),
    as_on: str | None = None,
    stages: Stages | None = None,
) -> list[ServedModel]:
    """Load `programs`, and each once more for each defect in `emulate` that changes it.

    Args:
        programs: Paths of .pte files.
        tokenizer: A tokenizer.json for all of them; None is the one beside each.
        device: As in `load_runner`.
        emulate: Ids of defects to compute with.
        as_on: GPU[@RELEASE] as which the Vulkan programs compute, as in `arithmetic_as_on`.
        stages: Receives the progress of loading each program.

    Raises:
        InputError: If two programs would have one name, the name of one is not UTF-8, one is not
            from tokens to logits, none can be computed with a defect, or a program or tokenizer
            cannot be read; as `load_runner`.
    """
    _check_names(programs)
    opened = [open_program(path) for path in programs]
    for program in opened:
        require_tokens_to_logits(program.path, program.metadata, "serve")
    if (emulate or as_on) and not any(is_vulkan(program) for program in opened):
        asked = f"--emulate {emulate[0]}" if emulate else f"--as-on {as_on}"
        raise InputError(
            f"{asked}: applies only to Vulkan programs, and none is served; leave it out, or "
            f"serve a Vulkan program beside {programs[0]}"
        )
    arithmetic = arithmetic_as_on(as_on)
    changing = [tuple(emulatable_defects(program, arithmetic)) for program in opened]
    for defect in emulate:
        if not any(defect in found for found in changing):
            raise InputError(
                f"--emulate {defect}: does not change what these programs compute; leave it out"
            )
    tokenizers = [Tokenizer.load(chosen_tokenizer(tokenizer, program.path)) for program in opened]
    stages = stages or Stages()
    models = []
    for program, its_tokenizer, found in zip(opened, tokenizers, changing, strict=True):
        load = partial(_loaded, program, its_tokenizer, device, as_on, found)
        for defect in [None, *(one for one in dict.fromkeys(emulate) if one in found)]:
            with stages(f"load {_name(program.path, defect)}"):
                models.append(load(defect))
    return models


def _check_names(programs: Sequence[Path]) -> None:
    found: dict[str, Path] = {}
    for path in programs:
        require_utf8_name(path, "a server")
        other = found.setdefault(path.stem, path)
        if other is not path and other.resolve() == path.resolve():
            raise InputError(f"{path}: is named twice; name it once")
        if other is not path:
            raise InputError(
                f"{path}: its name for clients would be {path.stem!r}, as for {other}; rename a "
                "copy of one of them, with its tokenizer files beside it"
            )


def _name(path: Path, defect: str | None) -> str:
    return path.stem if defect is None else f"{path.stem}+{defect}"


def _loaded(
    program: Program, tokenizer: Tokenizer, device: str, as_on: str | None,
    changing: tuple[EmulatedDefect, ...], defect: str | None,
) -> ServedModel:  # fmt: skip
    as_on = as_on if is_vulkan(program) else None
    runner = load_runner(program, device, defect, arithmetic_as_on(as_on))
    return ServedModel(
        name=_name(program.path, defect),
        created=int(program.path.stat().st_mtime),
        runner=runner,
        tokenizer=tokenizer,
        context=program.context,
        vocab_size=program.metadata.get("get_vocab_size"),
        emulates=defect,
        as_on=as_on,
        can_emulate=() if defect else changing,
        with_defect=partial(_loaded, program, tokenizer, device, as_on, changing),
    )
