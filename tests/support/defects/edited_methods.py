"""Programs whose method was edited: what it is called, takes, gives, and hands to its delegate."""

import struct
from collections.abc import Callable
from pathlib import Path

from quatrain.multiples import up_to
from quatrain.program import open_program
from quatrain.program.file.flatbuffer import Record, decode, encode
from quatrain.program.file.schema import program_schema, xnnpack_schema
from quatrain.program.file.segments import EXTENDED_HEADER

Make = Callable[[Path], Path]
Edit = Callable[[Record], None]


def edited_method(source: Path, edit: Edit) -> Make:
    """The program `source` after `edit` of the plan of its method with a delegate."""
    return _edited(source, lambda root: edit(_with_delegate(root)))


def under_names(source: Path, *names: str) -> Make:
    """The program `source` whose method with a delegate is there once under each of `names`."""

    def edit(root: Record) -> None:
        plan = _with_delegate(root)
        copies = [Record(**{**vars(plan), "name": name}) for name in names]
        others = [each for each in root.execution_plan if each is not plan]
        root.execution_plan = sorted([*copies, *others], key=lambda each: each.name)

    return _edited(source, edit)


def kernel_calls(plan: Record, operator: str) -> list[Record]:
    """Those of operators that have `operator` in their names."""
    names = [each.name for each in plan.operators]
    calls = [each.instr_args for each in plan.chains[0].instructions]
    return [c for c in calls if c.table == "KernelCall" and operator in names[c.op_index]]


def caches(plan: Record) -> list[Record]:
    """The KV caches that operators of their own write into."""
    return [plan.values[call.args[1]].val for call in kernel_calls(plan, "llama::update_cache")]


def give_instead(plan: Record, operator: str, place: int, value: Record) -> None:
    """Argument `place` of the first call of `operator` is `value`, one more of the plan."""
    plan.values = [*plan.values, Record(table="EValue", val=value)]
    kernel_calls(plan, operator)[0].args[place] = len(plan.values) - 1


def _with_delegate(root: Record) -> Record:
    return next(plan for plan in root.execution_plan if plan.delegates)


def _edited(source: Path, edit: Edit, segment: bytes = b"") -> Make:
    """`segment`: one more, at the next multiple of 16 bytes behind the others."""

    def make(folder: Path) -> Path:
        program = open_program(source)
        edit(program.root)
        body = encode(program.root, program_schema())
        size = len(body) + EXTENDED_HEADER.size
        base = -(-size // 4096) * 4096
        segments = source.read_bytes()[program.segment_base :]
        segments = segments.ljust(up_to(len(segments), 16), b"\0") + segment
        header = EXTENDED_HEADER.pack(b"eh00", EXTENDED_HEADER.size, size, base, len(segments))
        start = int.from_bytes(body[:4], "little") + EXTENDED_HEADER.size
        head = start.to_bytes(4, "little") + body[4:8] + header + body[8:]
        path = folder / "edited.pte"
        path.write_bytes(head + bytes(base - len(head)) + segments)
        return path

    return make


def edited_delegate(source: Path, index: int, edit: Edit) -> Make:
    """The program `source` after `edit` of the graph of its XNNPACK delegate `index`, whose
    constants are stored beside delegates."""
    program = open_program(source)
    blob = bytes(program.delegates[index].blob)
    start, size, _, _ = struct.unpack_from("<IIIQ", blob, 10)  # behind XNNHeader's magic and size
    graph = decode(memoryview(blob)[start : start + size], xnnpack_schema(), str(source))
    edit(graph)
    body = encode(graph, xnnpack_schema())
    header = blob[:10] + struct.pack("<IIIQ", start, len(body), start + len(body), 0)
    edited = header + blob[len(header) : start] + body

    def change(root: Record) -> None:
        place = _with_delegate(root).delegates[index].processed.index
        before = len(source.read_bytes()) - program.segment_base
        root.segments[place].offset, root.segments[place].size = up_to(before, 16), len(edited)

    return _edited(source, change, edited)


def called_twice(plan: Record) -> None:
    plan.chains[0].instructions = plan.chains[0].instructions * 2


def of_two_delegates(plan: Record) -> None:
    """The second one's call is as the first one's."""
    (step,) = plan.chains[0].instructions
    call = Record(**{**vars(step.instr_args), "delegate_index": 1})
    plan.delegates = plan.delegates * 2
    plan.chains[0].instructions = [step, Record(**{**vars(step), "instr_args": call})]


def one_value_more(plan: Record) -> None:
    call = plan.chains[0].instructions[-1].instr_args
    call.args = [*call.args[:1], *call.args]


def beyond_its_memory(plan: Record) -> None:
    """4 GiB further."""
    plan.values[plan.inputs[0]].val.allocation_info.memory_offset_high += 1


def of_another_backend(plan: Record) -> None:
    plan.delegates[0].id = "VulkanBackend2"


def result(*sizes: int) -> Edit:
    """The method's result has room for `sizes`."""

    def edit(plan: Record) -> None:
        plan.values[plan.outputs[0]].val.sizes = list(sizes)

    return edit


def given_as(scalar_type: int) -> Edit:
    """The method's result has this ScalarType: 5 is float16, 15 is bfloat16."""

    def edit(plan: Record) -> None:
        plan.values[plan.outputs[0]].val.scalar_type = scalar_type

    return edit


def tokens_with(**fields: object) -> Edit:
    """The method's tokens with these fields."""

    def edit(plan: Record) -> None:
        vars(plan.values[plan.inputs[0]].val).update(fields)

    return edit


def in_memory_0(plan: Record) -> None:
    """Which there is not: numbers begin with 1."""
    place = plan.values[plan.inputs[0]].val.allocation_info
    plan.non_const_buffer_sizes[0], place.memory_id = 1 << 20, 0


def position_of_nothing(plan: Record) -> None:
    plan.values[plan.inputs[1]].val = Record(table="Null")


def one_value_missing(plan: Record) -> None:
    plan.values = [*plan.values, Record(table="EValue", val=None)]


def stored_as(storage: bytes) -> Edit:
    def edit(plan: Record) -> None:
        told = Record(table="CompileSpec", key="storage_type_override", value=storage)
        plan.delegates[0].compile_specs = [told]

    return edit


def tokens_of_one_length(plan: Record) -> None:
    plan.values[plan.inputs[0]].val.shape_dynamism = 0


def varying_input(*sizes: int) -> Edit:
    """The method hands its delegate one tensor more, the first, of those sizes or smaller ones."""

    def edit(plan: Record) -> None:
        fields = program_schema().tables["Tensor"]
        empty = {field.name: 0 if field.kind == "scalar" else None for field in fields}
        order = list(range(len(sizes)))
        stated = {"scalar_type": 6, "sizes": list(sizes), "dim_order": order, "shape_dynamism": 1}
        tensor = Record(table="Tensor", **{**empty, **stated})
        plan.values = [*plan.values, Record(table="EValue", val=tensor)]
        call = plan.chains[0].instructions[-1].instr_args
        call.args = [len(plan.values) - 1, *call.args]

    return edit


# What does not say where it lies lies in a buffer.
all_in_buffers = stored_as(bytes(4))


def tokens_as_text(plan: Record) -> None:
    plan.values[plan.inputs[0]].val = text("w1")


def tokens_given_back(plan: Record) -> None:
    plan.outputs = [plan.inputs[0], *plan.outputs]


def called_by_no_name(plan: Record) -> None:
    plan.name = None


def without_instructions(plan: Record) -> None:
    plan.chains[0].instructions = []


def before(table: str, **fields: object) -> Edit:
    """The method has this instruction before its only one."""

    def edit(plan: Record) -> None:
        step = Record(table="Instruction", instr_args=Record(table=table, **fields))
        plan.chains[0].instructions = [step, *plan.chains[0].instructions]

    return edit


def memory_without_use(plan: Record) -> None:
    plan.non_const_buffer_sizes = [0, 1 << 45]


def only_tokens_given_back(plan: Record) -> None:
    plan.outputs = [plan.inputs[0]]


def called_otherwise(plan: Record) -> None:
    plan.name = "decode"


def edited_constants(source: Path, values: dict[str, int | bool]) -> Make:
    """The program `source` whose constant methods of those names return those numbers."""

    def edit(root: Record) -> None:
        for plan in root.execution_plan:
            for value in plan.values if plan.name in values else ():
                field = "bool_val" if isinstance(values[plan.name], bool) else "int_val"
                if value.val is not None and hasattr(value.val, field):
                    setattr(value.val, field, values[plan.name])

    return _edited(source, edit)


def returning(source: Path, name: str, *values: Record | None) -> Make:
    """The program `source` with a constant method `name` that returns `values` (None: nothing)."""

    def edit(root: Record) -> None:
        plans = [plan for plan in root.execution_plan if not plan.delegates]
        stated = [Record(table="EValue", val=value) for value in values]
        made = {"name": name, "values": stated, "outputs": list(range(len(stated)))}
        plan = Record(**{**vars(plans[0]), **made})
        others = [each for each in root.execution_plan if each.name != name]
        root.execution_plan = sorted([plan, *others], key=lambda each: each.name)

    return _edited(source, edit)


def whole(value: int) -> Record:
    return Record(table="Int", int_val=value)


def truth(value: bool) -> Record:
    return Record(table="Bool", bool_val=value)


def text(value: str) -> Record:
    return Record(table="String", string_val=value)


def ids(*values: int) -> Record:
    """A list of other values, by their ids."""
    return Record(table="IntList", items=list(values))


def planned_over(written: str, read: str) -> Edit:
    """The result of the first call of the operator `written` lies where that of the first call of
    `read` does."""

    def edit(plan: Record) -> None:
        first, over = (
            plan.values[kernel_calls(plan, name)[0].args[-1]].val for name in (read, written)
        )
        over.allocation_info = first.allocation_info

    return edit
