"""The methods of a program: inputs, instructions, outputs, and metadata."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quatrain.errors import InputError
from quatrain.program.file.flatbuffer import Record

CONTEXT, CALL = "get_max_context_len", "get_max_seq_len"  # the most tokens of each

_Check = Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value > 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, int) and value in (0, 1)  # True and False too


def _all_satisfy(check: _Check, value: Any) -> bool:
    return isinstance(value, list) and all(map(check, value))


# What is read of what a method returns: the method, whether that is so, and in words for people.
_COUNT = (_is_count, "one whole number above 0")
_FLAG = (_is_flag, "true or false")
_EXPECTED: dict[str, tuple[_Check, str]] = {
    **dict.fromkeys((CONTEXT, CALL, "get_vocab_size", "get_n_layers"), _COUNT),
    **dict.fromkeys(("use_kv_cache", "enable_dynamic_shape"), _FLAG),
    **dict.fromkeys(("quatrain_embedding_input", "quatrain_hidden_output"), _FLAG),
    "quatrain_keeps_last_inputs": _FLAG,
    "quatrain_attention_sink": (
        lambda value: _all_satisfy(_is_count, value) and len(value) == 2,
        "two whole numbers above 0, the sinks and the window",
    ),
    "get_bos_id": (_is_integer, "one whole number"),
    "get_eos_ids": (
        lambda value: _is_integer(value) or _all_satisfy(_is_integer, value),
        "one whole number or several",
    ),
}


@dataclass(frozen=True)
class Instruction:
    """One step of a method: `kind` is kernel, delegate, move, jump or free.

    `target` is the operator's full name, the index of the delegate in `Program.delegates`, or the
    instruction that a jump goes to where its argument is false.
    """

    kind: str
    target: str | int
    args: tuple[int, ...] = ()


@dataclass
class Method:
    """A method of the program; `inputs` and `outputs` describe its values."""

    name: str
    inputs: list[Record]
    outputs: list[Record]
    instructions: list[Instruction]


def read_methods(root: Record, what: str) -> dict[str, Method]:
    """The methods of the decoded program `root`; `InputError` naming `what` if ids are wrong, or
    two have one name."""
    methods: dict[str, Method] = {}
    first_delegate = 0
    for plan in root.execution_plan or ():
        values, name = [value.val for value in plan.values or ()], plan.name or ""
        if name in methods:
            raise InputError(f"{what}: damaged: two of its methods are called {name!r}")
        methods[name] = Method(
            name=name,
            inputs=[_pick(values, i, what) for i in plan.inputs or ()],
            outputs=[_pick(values, i, what) for i in plan.outputs or ()],
            instructions=[
                _instruction(plan, step.instr_args, first_delegate, what)
                for chain in plan.chains or ()
                for step in chain.instructions or ()
            ],
        )
        first_delegate += len(plan.delegates or ())
    return methods


def _instruction(plan: Record, step: Record | None, first: int, what: str) -> Instruction:
    if step is None:
        raise InputError(f"{what}: damaged: an empty instruction")
    args = tuple(getattr(step, "args", None) or ())
    for item in args:
        _pick(plan.values or (), item, what)
    match step.table:
        case "KernelCall":
            operator = _pick(plan.operators or (), step.op_index, what)
            name = ".".join(part for part in (operator.name, operator.overload) if part)
            return Instruction("kernel", name.replace("::", "."), args)
        case "DelegateCall":
            _pick(plan.delegates or (), step.delegate_index, what)
            return Instruction("delegate", first + step.delegate_index, args)
        case "MoveCall":
            return Instruction("move", "", (step.move_from, step.move_to))
        case "JumpFalseCall":
            condition = _pick(range(len(plan.values or ())), step.cond_value_index, what)
            return Instruction("jump", step.destination_instruction, (condition,))
        case _:
            return Instruction("free", "")


def _pick(items: Sequence[Any], index: int, what: str) -> Any:
    if not 0 <= index < len(items):
        raise InputError(f"{what}: damaged: id {index} of {len(items)}")
    return items[index]


def stated_metadata(methods: dict[str, Method], what: str) -> dict[str, Any]:
    """What the methods without inputs and instructions return: one value, or a list. `InputError`
    naming `what` if one that is read here returns something else than it should."""
    metadata = {}
    for method in methods.values():
        if not method.inputs and not method.instructions and method.outputs:
            values = [plain(output) for output in method.outputs]
            metadata[method.name] = values[0] if len(values) == 1 else values
    for name, (is_right, expected) in _EXPECTED.items():
        if name in metadata and not is_right(metadata[name]):
            raise InputError(
                f"{what}: its method {name} returns {_in_words(metadata[name])}, expected "
                f"{expected}; it is damaged: export it again"
            )
    return metadata


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_in_words, value))}]"
    if isinstance(value, Record):
        return f"one {value.table}"
    return "nothing" if value is None else repr(value)


def with_context(stated: Mapping[str, Any]) -> dict[str, Any]:
    """`stated` with the context, which defaults to the length of a call, as in ExecuTorch's runner
    (`get_llm_metadata` of `llm_runner_helper.cpp`)."""
    longest = {CONTEXT: stated[CALL]} if CALL in stated else {}
    return longest | dict(stated)


def plain(value: Record | None) -> Any:
    """The Python value; a tensor stays a record, and so do lists of other values' ids."""
    names = {"Int": "int_val", "Bool": "bool_val", "Double": "double_val", "String": "string_val"}
    if value is None or value.table == "Null":
        return None
    if value.table in names:
        return getattr(value, names[value.table])
    return value.items if value.table in ("BoolList", "DoubleList") else value
