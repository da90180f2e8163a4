"""SmolLM2's programs are as large as was planned, and their memory plans as their memory was."""

import pytest
from tests.support.models.real_models import PROGRAMS

from quatrain.checkpoint.open import open_checkpoint
from quatrain.export.plan.programs import programs_of
from quatrain.export.plan.weightless import weightless_checkpoint
from quatrain.program import Tensor, open_program


@pytest.mark.parametrize("name", PROGRAMS)
def test_smollm2_is_as_planned(name, smollm2):
    options, path = PROGRAMS[name], smollm2.program(name)
    (planned,) = programs_of(weightless_checkpoint(open_checkpoint(smollm2.checkpoint)), [options])
    assert planned.predicted_bytes is not None
    assert planned.predicted_bytes.file == pytest.approx(path.stat().st_size, rel=1e-3)
    program = open_program(path)
    if options.backend == "xnnpack":
        linears = sum(len(program.named_bytes(key)) for key in program.named_data)
        buffers = sum(program.root.execution_plan[0].non_const_buffer_sizes)
        within = 3 * 512 * 1536 * 4  # what XNNPACK itself holds between a feed-forward's operators
        assert linears + buffers < planned.predicted_bytes.memory < linears + buffers + within
    else:
        heads, context = 9, 512
        attention = 2 * heads * context * context * 4
        predicted = planned.predicted_bytes
        held = predicted.constants + predicted.caches + attention + _activations(program)
        assert planned.predicted_bytes.memory == pytest.approx(held, rel=1e-3)


def _activations(program):
    """The largest tensor of each piece of memory that values share, and no constant."""
    largest: dict[int, int] = {}
    for value in program.vulkan.values:
        if isinstance(value, Tensor) and value.constant is None and value.mem_obj_id is not None:
            size = max(largest.get(value.mem_obj_id, 0), value.nbytes)
            largest[value.mem_obj_id] = size
    return sum(largest.values())
