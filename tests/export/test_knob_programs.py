"""The knobs of ExecuTorch's ModelArgs, some at a time and all together, exported in both
schemes and on both backends, against ExecuTorch's own model on the same int4 weights.

`make thorough` turns the groups of those that are all together, too, and each by itself, as
tests/backbone/test_knobs.py does in floating point.
"""

from functools import cache, partial

import pytest
import torch
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.comparisons.verified import assert_verified
from tests.support.devices import DEVICES_OF
from tests.support.made_once import made_once
from tests.support.models.knobs import ALL, KNOBS, TINY, Peer, write_meta_folder
from tests.support.thorough import thorough

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
# Every knob is in one of these: those of a group have nothing to do with each other.
GROUPS = {
    "no embedding": ("apply_embedding", "qk_norm", "use_attn_o_gate"),
    "no output": (
        "apply_output", "normalize_tok_embeddings", "use_attn_o_norm", "longrope by its contexts",
    ),
    "pruned": (
        "input_prune_map", "output_prune_map", "embedding_scale_factor", "output_soft_cap_temp",
        "use_residual_gate", "attention_multiplier",
    ),
    "wide output": ("output_linear_intermediate_dim", "scale_query_by", "longrope"),
    "unlike layers": (
        "no_rope_layer_interval", "num_kv_shared_layers", "qk_norm_affine",
        "use_ffn_learnable_scales", "residual_multiplier",
    ),
}  # fmt: skip


def fields_of(*knobs):
    """Of a small model with these knobs turned."""
    fields = {name: value for knob in knobs for name, value in KNOBS[knob].items()}
    if "num_kv_shared_layers" in knobs:
        return {**SMALL, **fields, **TWO_LAYERS}
    return {**SMALL, **fields, "n_layers": 2 if "no_rope_layer_interval" in knobs else 1}


TOGETHER = {"all together": {**SMALL, **ALL, **TWO_LAYERS}}
GROUPED = {name: fields_of(*knobs) for name, knobs in GROUPS.items()}
ALONE = {knob: fields_of(knob) for knob in KNOBS}
CASES = GROUPED | TOGETHER | ALONE
# Those with a knob that is not among all together; of what is, each is seen there.
FEW = ("no embedding", "no output", *TOGETHER)
MORE = thorough(case for case in CASES if case not in FEW)
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


def test_every_knob_is_in_a_group():
    assert sorted(KNOBS) == sorted(knob for knobs in GROUPS.values() for knob in knobs)


@pytest.fixture(scope="module")
def on_vulkan(checkpoint_of, tmp_path_factory):
    """Exports a case in 8da4w, once: the report and the program."""

    @cache
    def make(case):
        path = tmp_path_factory.mktemp("vulkan") / "m.pte"
        return export_checkpoint(checkpoint_of(case), path, VULKAN), path

    return make


@pytest.mark.parametrize("case", [*FEW, *MORE])
def test_vulkan_programs_equal_eager_and_executorch(case, checkpoint_of, on_vulkan, tmp_path):
    """In 8da4w as exported, and weight-only as retargeted from that: to export it takes as long
    again, and gives the same (`test_retargeted_is_as_exported`)."""
    checkpoint, (report, path) = checkpoint_of(case), on_vulkan(case)
    program = open_program(path)
    linears = find_linears(program.vulkan)
    assert {row.name for row in report.linears} == {linear.name for linear in linears}
    assert_equal_eager_and_executorch(path, case, checkpoint, VULKAN)
    retarget(program, "weight-only")
    write_program(program, tmp_path / "float.pte")
    assert_equal_eager_and_executorch(tmp_path / "float.pte", case, checkpoint, VULKAN_FLOAT)


@pytest.mark.parametrize("case", [*TOGETHER, *thorough(["apply_embedding", "apply_output"])])
def test_retargeted_is_as_exported(case, checkpoint_of, on_vulkan, tmp_path):
    """Of every knob's operators: all that can be are turned together."""
    export_checkpoint(checkpoint_of(case), tmp_path / "weight-only.pte", VULKAN_FLOAT)
    exported, retargeted = (
        open_program(tmp_path / "weight-only.pte"),
        open_program(on_vulkan(case)[1]),
    )
    retarget(retargeted, "weight-only")
    write_program(retargeted, tmp_path / "retargeted.pte")
    retargeted = open_program(tmp_path / "retargeted.pte")
    assert canonical(retargeted.vulkan) == canonical(exported.vulkan)
    assert set(retargeted.named_data) == set(exported.named_data)  # keys are digests


@pytest.mark.parametrize("case", TOGETHER)
def test_verify_passes_with_a_pruned_vocabulary(case, checkpoint_of, on_vulkan):
    """Whose tokens are rows of the embedding, and those without a row in the output are -inf."""
    checked = assert_verified(on_vulkan(case)[1], checkpoint_of(case)).packed
    assert {"output", "tok_embeddings"} <= {one.name for one in checked}


@pytest.mark.parametrize("case", [*FEW, *MORE])
def test_xnnpack_programs_equal_eager_and_executorch(case, checkpoint_of, tmp_path):
    checkpoint, path = checkpoint_of(case), tmp_path / "m.pte"
    export_checkpoint(checkpoint, path, XNNPACK)
    assert_equal_eager_and_executorch(path, case, checkpoint, XNNPACK)


@pytest.mark.parametrize("case", [*TOGETHER, *thorough(["apply_embedding", "apply_output"])])
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
