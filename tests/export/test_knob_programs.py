"""The knobs of ExecuTorch's ModelArgs, one at a time and all together, exported in both
schemes and on both backends, against ExecuTorch's own model on the same int4 weights."""

from functools import partial

import pytest
import torch
from tests.support.devices import DEVICES_OF
from tests.support.knobs import ALL, KNOBS, TINY, Peer, write_meta_folder
from tests.support.made_once import made_once
from tests.support.rounding import assert_equal_but_for_rounding

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import open_program, write_program
from quatrain.program.edit.replicated_layers import canonical
from quatrain.program.edit.retarget import retarget
from quatrain.program.inspect.linears import find_linears
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.load import load_runner
from quatrain.verify.eager import load_eager

# All linears of one shape, and one layer where that will do: a second or two a program, not ten.
SMALL = {"n_layers": 1, "n_kv_heads": 4, "hidden_dim": 64, "max_seq_len": 32}
TWO_LAYERS = {"n_layers": 2, "num_kv_shared_layers": 1}
CASES = {name: {**SMALL, **fields} for name, fields in KNOBS.items()} | {
    "no_rope_layer_interval": {**SMALL, "n_layers": 2, **KNOBS["no_rope_layer_interval"]},
    "num_kv_shared_layers": {**SMALL, **TWO_LAYERS},
    "all together": {**SMALL, **ALL, **TWO_LAYERS},
}
VULKAN, XNNPACK = ExportOptions(), ExportOptions(backend="xnnpack")
VULKAN_FLOAT = ExportOptions(scheme="weight-only")
# XNNPACK has no int4 kernel for floating-point activations: dequantized, as one asks for.
XNNPACK_FLOAT = ExportOptions("weight-only", "xnnpack", allow_fallback=True)
LENGTH, PREFILL = 8, 5
CALLS = ((0, PREFILL), *((at, at + 1) for at in range(PREFILL, LENGTH)))


@pytest.fixture(scope="module")
def checkpoint_of(shared):
    """Makes the int4 checkpoint of a case, once."""

    def make(case):
        def fill(folder):
            write_meta_folder(folder / "model", CASES[case], Peer(CASES[case]).state)
            quantize_model(folder / "model", folder / "int4", embedding="int4", method="rtn")

        return made_once(shared / f"knob {case}", fill) / "int4"

    return make


@pytest.mark.parametrize("case", CASES)
def test_vulkan_programs_equal_eager_and_executorch(case, checkpoint_of, tmp_path):
    """In 8da4w as exported, and weight-only as retargeted from that: to export it takes as long
    again, and gives the same (`test_retargeted_is_as_exported`)."""
    checkpoint, path = checkpoint_of(case), tmp_path / "m.pte"
    report = export_checkpoint(checkpoint, path, VULKAN)
    program = open_program(path)
    linears = find_linears(program.vulkan)
    assert {row.name for row in report.linears} == {linear.name for linear in linears}
    assert_equal_eager_and_executorch(path, case, checkpoint, VULKAN)
    retarget(program, "weight-only")
    write_program(program, tmp_path / "float.pte")
    assert_equal_eager_and_executorch(tmp_path / "float.pte", case, checkpoint, VULKAN_FLOAT)


@pytest.mark.parametrize("case", ["all together", "apply_embedding", "apply_output"])
def test_retargeted_is_as_exported(case, checkpoint_of, tmp_path):
    """Of every knob's operators: all that can be are turned together."""
    for scheme, options in (("8da4w", VULKAN), ("weight-only", VULKAN_FLOAT)):
        export_checkpoint(checkpoint_of(case), tmp_path / f"{scheme}.pte", options)
    retargeted, exported = (open_program(tmp_path / f"{s}.pte") for s in ("8da4w", "weight-only"))
    retarget(retargeted, "weight-only")
    write_program(retargeted, tmp_path / "retargeted.pte")
    retargeted = open_program(tmp_path / "retargeted.pte")
    assert canonical(retargeted.vulkan) == canonical(exported.vulkan)
    assert set(retargeted.named_data) == set(exported.named_data)  # keys are digests


@pytest.mark.parametrize("case", CASES)
def test_xnnpack_programs_equal_eager_and_executorch(case, checkpoint_of, tmp_path):
    checkpoint, path = checkpoint_of(case), tmp_path / "m.pte"
    export_checkpoint(checkpoint, path, XNNPACK)
    assert_equal_eager_and_executorch(path, case, checkpoint, XNNPACK)


@pytest.mark.parametrize("case", ["all together", "apply_embedding", "apply_output"])
def test_dequantized_xnnpack_programs_equal_eager_and_executorch(case, checkpoint_of, tmp_path):
    """Where all knobs that can be are turned together: only linears differ from 8da4w programs."""
    checkpoint, path = checkpoint_of(case), tmp_path / "m.pte"
    export_checkpoint(checkpoint, path, XNNPACK_FLOAT)
    assert_equal_eager_and_executorch(path, case, checkpoint, XNNPACK_FLOAT)


def assert_equal_eager_and_executorch(path, case, checkpoint, options):
    fields = CASES[case]
    eager = load_eager(checkpoint, options.scheme, ARITHMETIC_OF[options.backend])
    peer = Peer(fields, _dequantized(checkpoint))
    if options.scheme == "8da4w":
        peer.round_activations(PREFILL if options.backend == "vulkan" else None)
    for runner in [peer, *(load_runner(path, device) for device in DEVICES_OF[options.backend])]:
        assert_equal_but_for_rounding(runner, eager, partial(_inputs, fields), CALLS)


def _inputs(fields, generator):
    if not fields.get("apply_embedding", True):
        return torch.randn(1, LENGTH, TINY["dim"], generator=generator)
    rows = len(fields.get("input_prune_map") or range(TINY["vocab_size"]))
    return torch.randint(rows, (1, LENGTH), generator=generator)


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
