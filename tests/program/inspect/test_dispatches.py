"""What a call costs, held against what ExecuTorch's own runtime dispatched.

`MEASURED`: its C++ Vulkan runtime (main of 2026-08-22, on lavapipe) told each shader that it
encoded, for a prompt of five tokens and for the step after it; of a program as it is, and slimmed.
"""

import itertools
import json
import re
from dataclasses import asdict

import pytest
from tests.support.command_line import invoked
from tests.support.paths import CONFORMANCE
from tests.support.programs import VULKAN, artifact

from quatrain.program import open_program
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.dispatches import COPIES, call_cost, call_costs

MEASURED = {
    "llama_d": ((84, 70), (87, 55)),
    "g128_d": ((84, 70), (87, 55)),
    "granite_d": ((92, 78), (95, 63)),
    "qwen3_d": ((88, 74), (91, 59)),
    "knobs_d": ((243, 211), (245, 177)),
    "long_d": ((84, 70), (87, 55)),
}
LINEAR = "et_vk.linear_dq8ca_q4gsw"


@pytest.mark.parametrize("name", MEASURED)
def test_as_many_as_the_runtime_dispatches(name: str) -> None:
    program = open_program(CONFORMANCE / f"{name}.pte")
    found = []
    for _ in range(2):
        graph = program.vulkan
        found.append((call_cost(graph, 5, 0).dispatches, call_cost(graph, 1, 5).dispatches))
        slim(program)
    assert tuple(found) == MEASURED[name]


@pytest.mark.parametrize("name", VULKAN)
def test_sums_and_calls(name: str) -> None:
    graph = open_program(artifact(name)).vulkan
    calls = call_costs(graph)
    assert [(call.tokens, call.start) for call in calls] == [(30, 0), (1, 30)]  # of 31 at most
    for call in calls:
        costs = call.operators.values()
        assert call.dispatches == sum(cost.dispatches for cost in costs)
        assert call.bytes == sum(cost.bytes for cost in costs)
        assert call.operators[COPIES].dispatches == 3  # tokens, position, logits


def test_the_bytes_of_a_linear_are_its_constants_its_rows_and_its_results() -> None:
    graph = open_program(artifact("peer-8da4w-fp32")).vulkan
    first = next(i for i, operator in enumerate(graph.operators) if operator.kind == LINEAR)
    graph.operators = graph.operators[: first + 1]
    # 64 channels of 64 in groups of 32: weights, scales, a row in and out; sums and the row's
    # scale and zero point (int8) where it is quantized.
    weights, scales, sums = 64 * 32, 2 * 64 * 4, 2 * 64 * 4
    assert call_cost(graph, 1, 0).operators[LINEAR].bytes == weights + scales + 2 * 64 * 4
    rows = 5 * (2 * 64 * 4 + 4 + 1)
    assert call_cost(graph, 5, 0).operators[LINEAR].bytes == weights + scales + sums + rows


def test_attention_reads_as_far_as_it_sees() -> None:
    graph = open_program(artifact("peer-8da4w-fp32")).vulkan
    kind = "sdpa_with_kv_cache"
    early, late = (call_cost(graph, 1, start).operators[kind].bytes for start in (0, 20))
    assert late - early == 2 * 20 * (2 * 2 * 16 * 4)  # layers, rows, both caches of two heads
    end = call_cost(graph, 1, 31).operators[kind].bytes
    assert call_cost(graph, 1, 500).operators[kind].bytes == end  # a cache has no more rows


def test_inspect_prints_them() -> None:
    program = artifact("peer-8da4w-fp32")
    said = invoked(["inspect", program], env={"COLUMNS": "80"}).output
    lines = [re.sub(r"[^\w ]", " ", line).split() for line in said.splitlines()]
    headings = [(above[-2:], below[-4:]) for above, below in itertools.pairwise(lines)]
    assert (["prompt", "decode"], ["of", "30", "at", "30"]) in headings
    assert "torchao.choose_qparams_affine" in said  # whole, so that it can be searched for
    told = json.loads(invoked(["inspect", program, "--json"]).output)
    calls = call_costs(open_program(program).vulkan)
    assert told["calls"] == json.loads(json.dumps([asdict(call) for call in calls]))
