"""Shared by the tests of programs: the peer's small artifacts, and programs built from nothing."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tests.support.paths import ARTIFACTS

from quatrain.program import Constant, Plain, Tensor, Value, VulkanGraph
from quatrain.program.file.flatbuffer import Record, encode
from quatrain.program.file.schema import program_schema
from quatrain.program.file.segments import EXTENDED_HEADER
from quatrain.program.vulkan.graph import Operator
from quatrain.program.vulkan.graph_bytes import write_graph
from quatrain.runtime.reference import ReferenceRunner

TOKENS = [3, 17, 40, 9, 22, 61, 5, 33, 12]  # what make_artifacts.py fed the peer's eager model
PROMPT = 6
EVERY = sorted(path.stem for path in ARTIFACTS.glob("*.pte"))
VULKAN = [name for name in EVERY if "xnnpack" not in name]


def artifact(name: str) -> Path:
    return ARTIFACTS / f"{name}.pte"


def run_tokens(path: Path) -> torch.Tensor:
    """Logits of the reference runtime for TOKENS: a prompt, then one by one."""
    runner = ReferenceRunner(path)
    rows = [runner.forward(torch.tensor([TOKENS[:PROMPT]]), torch.tensor([0]))]
    for i, token in enumerate(TOKENS[PROMPT:]):
        rows.append(runner.forward(torch.tensor([[token]]), torch.tensor([PROMPT + i])))
    return torch.stack([row.reshape(-1) for row in rows])


class GraphMaker:
    """Builds a graph value by value; constants are kept to be stored as named data."""

    def __init__(self) -> None:
        self.graph = VulkanGraph([], [], [], [], [])
        self.data: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}

    def add(self, value: Value) -> int:
        self.graph.values.append(value)
        return len(self.graph.values) - 1

    def plain(self, kind: str, content: object = None) -> int:
        return self.add(Plain(kind, content))

    def tensor(self, dtype: str, *shape: int, **more: object) -> int:
        return self.add(Tensor(dtype, shape, staging_dtype=dtype, **more))  # type: ignore

    def add_shape(self, *sizes: int) -> int:
        return self.plain("int_list", sizes)

    def input(self, dtype: str, *shape: int) -> int:
        value = self.tensor(dtype, *shape)
        self.graph.inputs.append(value)
        return value

    def constant(self, array: np.ndarray) -> int:
        key = f"constant_{len(self.data)}"
        self.data[key] = array.tobytes()
        self.graph.constants.append(Constant(array.nbytes, key))
        place = len(self.graph.constants) - 1
        return self.tensor(str(array.dtype), *array.shape, constant=place)

    def hole(self, dtype: str, *shape: int) -> int:
        """A constant of zeros that takes no room on disk."""
        key = f"constant_{len(self.data)}"
        self.data[key] = b""
        self.sizes[key] = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.graph.constants.append(Constant(self.sizes[key], key))
        return self.tensor(dtype, *shape, constant=len(self.graph.constants) - 1)

    def call(self, name: str, *args: int) -> None:
        self.graph.operators.append(Operator(name, args))

    def save(self, path: Path, outputs: Iterable[int]) -> Path:
        self.graph.outputs = list(outputs)
        return write_new_program(path, self.graph, self.data, self.sizes)


def write_new_program(
    path: Path,
    graph: VulkanGraph,
    data: dict[str, bytes],
    sizes: dict[str, int] | None = None,
) -> Path:
    """A `.pte` with one method that is one call of `graph`.

    `sizes` gives some of `data` more bytes than are written: a hole in the file.
    """
    blob = write_graph(graph, 0)
    pieces = [blob, *data.values()]
    lengths = [len(blob), *((sizes or {}).get(key, len(piece)) for key, piece in data.items())]
    offsets = np.cumsum([0, *(-(-length // 128) * 128 for length in lengths)])
    root = _root(len(graph.inputs), len(graph.outputs), list(data), lengths, offsets)
    body = encode(root, program_schema())
    size = len(body) + 32
    base = -(-size // 128) * 128
    header = EXTENDED_HEADER.pack(b"eh00", 32, size, base, int(offsets[-1]))
    start = int.from_bytes(body[:4], "little") + 32
    with path.open("wb") as file:
        file.write(start.to_bytes(4, "little") + body[4:8] + header + body[8:])
        for piece, offset in zip(pieces, offsets, strict=False):
            file.seek(base + int(offset))
            file.write(piece)
        file.truncate(base + int(offsets[len(pieces) - 1]) + lengths[-1])
    return path


def _root(
    inputs: int, outputs: int, keys: list[str], lengths: list[int], offsets: np.ndarray
) -> Record:
    count = inputs + outputs
    call = Record(table="DelegateCall", delegate_index=0, args=list(range(count)))
    chain = Record(
        table="Chain",
        inputs=[],
        outputs=[],
        instructions=[Record(table="Instruction", instr_args=call)],
        stacktrace=None,
    )
    place = Record(table="BackendDelegateDataReference", location=1, index=0)
    delegate = Record(
        table="BackendDelegate", id="VulkanBackend", processed=place, compile_specs=[]
    )
    plan = Record(
        table="ExecutionPlan",
        name="forward",
        container_meta_type=None,
        values=[Record(table="EValue", val=Record(table="Null")) for _ in range(count)],
        inputs=list(range(inputs)),
        outputs=list(range(inputs, count)),
        chains=[chain],
        operators=[],
        delegates=[delegate],
        non_const_buffer_sizes=[0],
        non_const_buffer_device=None,
    )
    return Record(
        table="Program",
        version=0,
        execution_plan=[plan],
        constant_buffer=[],
        backend_delegate_data=[],
        segments=[
            Record(table="DataSegment", offset=int(offset), size=length)
            for length, offset in zip(lengths, offsets, strict=False)
        ],
        constant_segment=None,
        mutable_data_segments=None,
        named_data=[
            Record(table="NamedData", key=key, segment_index=i + 1) for i, key in enumerate(keys)
        ],
    )
