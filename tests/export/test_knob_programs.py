"""The knobs of ExecuTorch's ModelArgs, one at a time and all together, exported in both schemes
and on both backends, against ExecuTorch's own model on the same int4 weights."""

import pytest
import torch
from tests.support.knobs import ALL, KNOBS, TINY, Peer, write_meta_folder
from tests.support.peers import prefill_then_decode, relative_error

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import open_program
from quatrain.program.inspect.linears import find_linears
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.load import load_runner
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.verify.eager import load_eager

# All linears of one shape, and one layer where that will do: a second or two a program, not ten.
SMALL = {"n_layers": 1, "n_kv_heads": 4, "hidden_dim": 64, "max_seq_len": 32}
TWO_LAYERS = {"n_layers": 2, "num_kv_shared_layers": 1}
CASES = {name: {**SMALL, **fields} for name, fields in KNOBS.items()} | {
    "no_rope_layer_interval": {**SMALL, "n_layers": 2, **KNOBS["no_rope_layer_interval"]},
    "num_kv_shared_layers": {**SMALL, **TWO_LAYERS},
    "all together": {**SMALL, **ALL, **TWO_LAYERS},
}
PROGRAMS = {
    "vulkan 8da4w": ExportOptions(),
    "vulkan weight-only": ExportOptions(scheme="weight-only"),
    "xnnpack 8da4w": ExportOptions(backend="xnnpack"),
    # XNNPACK has no int4 kernel for floating-point activations: dequantized, as one asks for.
    "xnnpack weight-only": ExportOptions("weight-only", "xnnpack", allow_fallback=True),
}
LENGTH, PREFILL = 8, 5
TOLERANCE = 1e-5
# Where ExecuTorch's model rounds a sum otherwise, an activation may go to the next of 256 steps.
ONE_STEP = 0.02


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory):
    """Makes the int4 checkpoint of a case, once."""
    made = {}

    def make(case):
        if case not in made:
            folder, fields = tmp_path_factory.mktemp("knob"), CASES[case]
            write_meta_folder(folder / "model", fields, Peer(fields).state)
            quantize_model(folder / "model", folder / "int4", embedding="int4")
            made[case] = folder / "int4"
        return made[case]

    return make


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("case", CASES)
def test_program_equals_eager_and_executorch(case, program, checkpoint_of, tmp_path):
    fields, options, checkpoint = CASES[case], PROGRAMS[program], checkpoint_of(case)
    inputs = _inputs(fields)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    if options.backend == "vulkan":
        linears = find_linears(open_program(tmp_path / "m.pte").vulkan)
        assert {row.name for row in report.linears} == {linear.name for linear in linears}
    device = "reference" if options.backend == "vulkan" else "executorch"
    found = _called(load_runner(tmp_path / "m.pte", device), inputs)
    if options.backend == "vulkan":
        _check_gpu(tmp_path / "m.pte", inputs, found, options.scheme)
    eager = prefill_then_decode(
        load_eager(checkpoint, options.scheme, ARITHMETIC_OF[options.backend]), inputs, PREFILL
    )
    peer = Peer(fields, _dequantized(checkpoint))
    if options.scheme == "8da4w":
        peer.round_activations(PREFILL if options.backend == "vulkan" else None)
    theirs = peer.steps(inputs)
    theirs = theirs[:, PREFILL - 1 :] if fields.get("apply_output", True) else theirs
    assert _error(found, eager) < TOLERANCE
    assert _error(found, theirs) < (ONE_STEP if options.scheme == "8da4w" else TOLERANCE)


def _check_gpu(program, inputs, found, scheme):
    """The GPU runtime computes what the reference runtime `found`."""
    if list_adapters():
        on_gpu = _called(load_runner(program, "gpu"), inputs)
        assert _error(on_gpu, found) < (ONE_STEP if scheme == "8da4w" else TOLERANCE)


def _inputs(fields):
    generator = torch.Generator().manual_seed(3)
    if not fields.get("apply_embedding", True):
        return torch.randn(1, LENGTH, TINY["dim"], generator=generator)
    rows = len(fields.get("input_prune_map") or range(TINY["vocab_size"]))
    return torch.randint(rows, (1, LENGTH), generator=generator)


def _called(program, inputs):
    calls = [(0, PREFILL), *((i, i + 1) for i in range(PREFILL, LENGTH))]
    results = [program.forward(inputs[:, a:b], torch.tensor([a])) for a, b in calls]
    return torch.cat([result.view(1, -1, result.shape[-1]) for result in results], dim=1)


def _dequantized(checkpoint):
    """The tensors that an int4 checkpoint stands for, in floating point."""
    tensors = open_checkpoint(checkpoint).tensors
    state = {name: tensors[name].float() for name in tensors if not name.endswith(".scales")}
    for name in tensors:
        if name.endswith(".scales"):
            weight, scales = name.replace(".scales", ".weight"), tensors[name]
            groups = state[weight].unflatten(-1, (scales.shape[-1], -1))
            state[weight] = (groups * scales[..., None]).flatten(-2)
    return state


def _error(found, expected):
    expected = expected.view(found.shape)
    finite = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(found), finite)
    return relative_error(found[finite], expected[finite])
