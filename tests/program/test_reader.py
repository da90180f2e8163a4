"""Reading programs: what `Program` says, against ExecuTorch's own reader, and bad input."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.defects.edited_methods import ids, returning, text, truth, under_names, whole
from tests.support.programs import VULKAN, GraphMaker, artifact, write_new_program

from quatrain.errors import InputError
from quatrain.program import (
    Operator,
    Plain,
    SymInt,
    Tensor,
    ValueList,
    VulkanGraph,
    open_program,
)
from quatrain.program.file.flatbuffer import Record
from quatrain.program.vulkan import operator_schemas
from quatrain.program.vulkan.graph import Value


@pytest.mark.parametrize("name", VULKAN)
def test_the_graph_equals_executorchs_reading(name: str) -> None:
    from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
        VulkanDelegateHeader,
        flatbuffer_to_vk_graph,
    )

    program = open_program(artifact(name))
    blob = bytes(program.delegates[0].blob)
    header = VulkanDelegateHeader.from_bytes(blob[:30])
    end = header.flatbuffer_offset + header.flatbuffer_size
    theirs = flatbuffer_to_vk_graph(blob[header.flatbuffer_offset : end])
    ours = program.vulkan
    assert [(op.name, list(op.args)) for op in ours.operators] == [
        (call.name, list(call.args)) for call in theirs.chain
    ]
    assert [_plain(value) for value in ours.values] == [_theirs(v.value) for v in theirs.values]
    assert (ours.inputs, ours.outputs) == (theirs.input_ids, theirs.output_ids)
    assert [(c.key, c.nbytes) for c in ours.constants] == [
        (c.named_key, c.length) for c in theirs.constants
    ]


def _plain(value: Value) -> object:
    match value:
        case Tensor():
            return (value.dtype.upper(), list(value.shape), value.constant, value.mem_obj_id)
        case SymInt():
            return ("SymInt", value.value)
        case ValueList():
            return ("ValueList", list(value.items))
        case Plain():
            content = list(value.value) if isinstance(value.value, tuple) else value.value
            return (value.kind, f"{content:.6g}" if value.kind == "double" else content)


def _theirs(value: object) -> object:
    fields = vars(value)
    kind = type(value).__name__
    if kind == "VkTensor":
        constant, mem = (
            None if fields[k] < 0 else fields[k] for k in ("constant_id", "mem_obj_id")
        )
        return (fields["datatype"].name, fields["dims"], constant, mem)
    if kind in ("SymInt", "ValueList"):
        return (kind, *fields.values())
    names = {"IntList": "int_list", "DoubleList": "double_list", "BoolList": "bool_list"}
    content = next(iter(fields.values()), None)
    # Their reading goes through JSON, which keeps only some digits.
    return (names.get(kind, kind.lower()), f"{content:.6g}" if kind == "Double" else content)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"GGUF\x03\0\0\0\0", "a GGUF file"),
        (b"PK\x03\x04\0\0\0\0\0", "a .pth file"),
        (b'\x40\0\0\0\0\0\0\0{"a"', "a safetensors file"),
    ],
)
def test_a_model_file_gets_the_steps_to_a_program(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "model").write_bytes(start)
    with pytest.raises(InputError, match=f"model: is {kind}, expected a program; `quatrain quant"):
        open_program(tmp_path / "model")


def test_methods_and_metadata() -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    assert program.metadata["get_max_seq_len"] == 32
    assert program.metadata["use_kv_cache"] is True
    steps = program.methods["forward"].instructions
    assert [(step.kind, step.target) for step in steps] == [("delegate", 0)]
    assert program.delegates[0].backend == "VulkanBackend"
    assert program.delegates[0].compile_specs["force_fp16"] == b"\0"


@pytest.mark.parametrize(
    "name", ["get_max_context_len", "get_max_seq_len", "get_vocab_size", "get_n_layers"]
)
@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((whole(32), whole(32)), r"\[32, 32\]"),
        ((whole(0),), "0"),
        ((whole(-1),), "-1"),
        ((truth(True),), "True"),
        ((text("32"),), "'32'"),
        ((None,), "nothing"),
        ((ids(0),), "one IntList"),
    ],
)
def test_a_size_that_is_not_a_number_is_refused(
    name: str, values: tuple[Record | None, ...], found: str, tmp_path: Path
) -> None:
    program = returning(artifact("peer-8da4w-fp32"), name, *values)(tmp_path)
    expected = f"its method {name} returns {found}, expected one whole number above 0"
    with pytest.raises(InputError, match=expected):
        open_program(program)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("get_bos_id", (whole(1), whole(1)), r"returns \[1, 1\], expected one whole number"),
        ("get_eos_ids", (ids(0, 1),), "returns one IntList, expected one whole number or several"),
        ("get_eos_ids", (whole(1), text("2")), r"returns \[1, '2'\], expected one whole number or"),
        ("quatrain_attention_sink", (whole(4),), "returns 4, expected two whole numbers above 0"),
        ("quatrain_attention_sink", (whole(4), whole(0)), r"returns \[4, 0\], expected two whole"),
        ("quatrain_keeps_last_inputs", (text(""),), "returns '', expected true or false"),
        ("quatrain_hidden_output", (truth(False),) * 2, r"returns \[False, False\], expected true"),
        ("quatrain_embedding_input", (None,), "returns nothing, expected true or false"),
        ("use_kv_cache", (whole(2),), "returns 2, expected true or false"),
        ("enable_dynamic_shape", (text("yes"),), "returns 'yes', expected true or false"),
    ],
)
def test_what_a_program_cannot_mean_of_itself_is_refused(
    name: str, values: tuple[Record | None, ...], expected: str, tmp_path: Path
) -> None:
    program = returning(artifact("peer-8da4w-fp32"), name, *values)(tmp_path)
    with pytest.raises(InputError, match=f"its method {name} {expected}"):
        open_program(program)


def test_what_a_program_may_state_of_itself_is_read(tmp_path: Path) -> None:
    source = artifact("peer-8da4w-fp32")
    several = returning(source, "get_eos_ids", whole(1), whole(2))(tmp_path)
    assert open_program(several).metadata["get_eos_ids"] == [1, 2]
    flag = returning(source, "use_kv_cache", whole(1))(tmp_path)
    assert open_program(flag).metadata["use_kv_cache"] == 1
    unknown = returning(source, "get_anything", ids(0))(tmp_path)
    assert open_program(unknown).metadata["get_anything"].table == "IntList"


def test_two_methods_of_one_name_are_refused(tmp_path: Path) -> None:
    program = under_names(artifact("peer-8da4w-fp32"), "forward", "forward")(tmp_path)
    with pytest.raises(InputError, match="two of its methods are called 'forward'"):
        open_program(program)


def test_arguments_have_names_and_types() -> None:
    graph = open_program(artifact("peer-8da4w-fp32")).vulkan
    linear = next(op for op in graph.operators if op.kind == "et_vk.linear_dq8ca_q4gsw")
    names = linear.named_args
    assert graph.tensor(names["x"]).shape == (1, 31, 64)
    assert graph.tensor(names["input_zero_points"]).dtype == "int8"
    assert graph.tensor(names["input_scales"]).storage == "texture3d"
    assert graph.integer(names["group_size"]) == 32
    assert graph.plain(names["bias"]) is None
    assert graph.outputs_of(linear) == (names["out"],)
    rotary = next(op for op in graph.operators if op.kind == "et_vk.apply_rotary_emb")
    assert len(graph.outputs_of(rotary)) == 2
    assert all("arg0" not in operator.named_args for operator in graph.operators)


def test_constants_are_read_only_views_of_the_file() -> None:
    program = open_program(artifact("peer-8da4w-fp32"))
    graph = program.vulkan
    linear = next(op for op in graph.operators if op.kind == "et_vk.linear_dq8ca_q4gsw")
    weights = graph.constant(linear.named_args["weights"])
    assert (weights.shape, weights.dtype) == ((64, 32), np.uint8)
    assert not weights.flags.writeable
    key = graph.constant_key(linear.named_args["weights"])
    assert key is not None and bytes(program.named_bytes(key)) == weights.tobytes()


def test_a_program_of_another_backend_opens_too() -> None:
    program = open_program(artifact("peer-xnnpack-8da4w"))
    assert {delegate.backend for delegate in program.delegates} == {"XnnpackBackend"}
    kinds = {step.kind for step in program.methods["forward"].instructions}
    assert kinds >= {"kernel", "delegate"}
    with pytest.raises(InputError, match="has no Vulkan delegate"):
        _ = program.vulkan


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys, quatrain; from quatrain.program.inspect.report import inspect_program; "
        f"inspect_program(quatrain.open_program({str(artifact('peer-8da4w-fp32'))!r})); "
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'executorch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(InputError, match=r"is a device or a pipe, .*write it to a file"):
            open_program(path)
    with pytest.raises(InputError, match=r"-: .*the standard input cannot be memory-mapped: write"):
        open_program("-")


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_program(tmp_path / "absent.pte")
    with pytest.raises(InputError, match="cannot be read"):
        open_program(tmp_path)
    foreign = tmp_path / "foreign.pte"
    for content in (b"", b"PK\x03\x04" + bytes(100), b"x" * 7):
        foreign.write_bytes(content)
        with pytest.raises(InputError):
            open_program(foreign)


def _graph() -> GraphMaker:
    maker = GraphMaker()
    x = maker.input("float32", 2, 3)
    out = maker.tensor("float32", 2, 3)
    maker.call("aten.sigmoid.default", x, out)
    maker.graph.outputs = [out]
    return maker


def _looked_up(graph: VulkanGraph, dtype: str) -> Operator:
    names = operator_schemas.argument_names("et_vk.embedding_q4gsw", 6)
    ids = tuple(graph.add(Tensor(dtype, (4, 16))) for _ in names or ())
    return Operator("et_vk.embedding_q4gsw.default", ids)


def _packed(graph: VulkanGraph, *shapes: tuple[int, ...]) -> Operator:
    return Operator("et_vk.prepack.default", tuple(graph.add(Tensor("int8", x)) for x in shapes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda g: g.values.append(ValueList((2,))), "list of values inside"),  # a cycle: itself
        (lambda g: g.values.append(ValueList((99,))), "value id 99"),
        (lambda g: g.outputs.append(77), "77 of 2 values"),
        (lambda g: g.operators.append(replace(g.operators[0], args=(-1,))), "value id -1"),
        (lambda g: g.operators.append(replace(g.operators[0], args=())), "no arguments"),
        (lambda g: g.values.append(Tensor("float32", (2**31, 2**31))), "a tensor of shape"),
        (lambda g: g.values.append(Tensor("float32", (1,) * 9)), "9 dimensions"),
        (lambda g: g.values.append(Tensor("float32", (1,), constant=3)), "constant id"),
        (lambda g: g.operators.append(_looked_up(g, "int64")), "expected a matrix of bytes"),
        (lambda g: g.operators.append(_packed(g, (2, 4), (2, 3))), r"prepack.* of \[2, 4\] into"),
    ],
)
def test_impossible_graphs_are_refused(damage, message: str, tmp_path: Path) -> None:
    maker = _graph()
    damage(maker.graph)
    path = write_new_program(tmp_path / "damaged.pte", maker.graph, {})
    with pytest.raises(InputError, match=message):
        open_program(path)


def test_a_constant_shorter_than_its_tensor_is_refused_when_asked_for(tmp_path: Path) -> None:
    maker = _graph()
    value = maker.constant(np.zeros(4, dtype=np.float32))
    maker.graph.values[value] = replace(maker.graph.tensor(value), shape=(5,))
    program = open_program(maker.save(tmp_path / "short.pte", maker.graph.outputs))
    with pytest.raises(InputError, match="16 bytes are stored, 20 are needed"):
        program.vulkan.constant(value)


def test_a_constant_kept_in_another_file_is_named(tmp_path: Path) -> None:
    maker = _graph()
    value = maker.constant(np.zeros(4, dtype=np.float32))
    maker.data.clear()
    program = open_program(maker.save(tmp_path / "external.pte", maker.graph.outputs))
    with pytest.raises(InputError, match="constant_0 is not in the file"):
        program.vulkan.constant(value)


@pytest.mark.parametrize("name", ["peer-8da4w-fp32", "peer-xnnpack-8da4w"])
def test_a_program_that_lacks_its_end_is_refused_when_opened(name: str, tmp_path: Path) -> None:
    data = artifact(name).read_bytes()
    for missing in (1, 1000, len(data) // 2):
        (tmp_path / "m.pte").write_bytes(data[:-missing])
        with pytest.raises(InputError, match="cut short"):
            open_program(tmp_path / "m.pte")
