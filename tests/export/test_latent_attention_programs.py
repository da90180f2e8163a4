"""Programs with latent attention, whose cache holds one vector of a token."""

import pytest
import torch
from tests.support.comparisons.one_delegate import assert_one_delegate_as_eager
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.rounding import assert_equal_but_for_rounding
from tests.support.comparisons.verified import assert_one_number_is_told, assert_verified
from tests.support.devices import DEVICES_OF
from tests.support.models.families import LATENT, MINICPM3
from tests.support.models.peers import int4_checkpoint, random_model
from tests.support.thorough import thorough

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.inspect.sizes import cache_values
from quatrain.runtime.load import load_runner
from quatrain.verify.eager import load_eager

# Not only from the first token on: keys of former calls are read, and written again.
CALLS = ((0, 9), (9, 12), *((at, at + 1) for at in range(12, 16)), (7, 14), (14, 15))
WIDTH = 32 + 8  # of latent vector and rotated key


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return int4_checkpoint(random_model("Youtu", **LATENT), tmp_path_factory.mktemp("youtu"))


@pytest.fixture(scope="module")
def of_minicpm(tmp_path_factory):
    """Rotated in halves, with multipliers; queries without a latent vector of their own."""
    fields = {**MINICPM3, "q_lora_rank": None, "num_hidden_layers": 2}
    return int4_checkpoint(random_model("MiniCPM3", **fields), tmp_path_factory.mktemp("minicpm3"))


@pytest.fixture(scope="module")
def on_vulkan(checkpoint, tmp_path_factory):
    """The report of an export in 8da4w."""
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("vulkan") / "m.pte")


def _assert_equals_eager(program, checkpoint, options):
    eager = load_eager(checkpoint, options.scheme, ARITHMETIC_OF[options.backend])
    for device in DEVICES_OF[options.backend]:
        assert_equal_but_for_rounding(
            load_runner(program, device), eager,
            lambda generator: torch.randint(96, (1, 16), generator=generator), CALLS,
        )  # fmt: skip


def test_one_vulkan_delegate_equals_eager(checkpoint, on_vulkan, tmp_path):
    """Weight-only made of the 8da4w program, which is compared layer by layer."""
    linears = {f"layers.2.attention.{name}" for name in ("wq_a", "wq_b", "wkv_a", "wo")}
    program = assert_one_delegate_as_eager(on_vulkan, checkpoint, linears, probes=25)
    assert [program.vulkan.tensor(i).shape for i in cache_values(program.vulkan)] == [
        (1, 64, 1, WIDTH)
    ] * 3
    assert_one_number_is_told(on_vulkan.output, checkpoint, "layers.1.attention.wk_b.weight")
    retarget(program, "weight-only")
    write_program(program, tmp_path / "float.pte")
    _assert_equals_eager(tmp_path / "float.pte", checkpoint, ExportOptions("weight-only"))


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "weight-only", "allow_fallback": True},
        *thorough([{"kv_cache": "int8"}, {"attention_sink": (2, 6), "prefill_chunk_size": 8}]),
    ],
)
def test_xnnpack_equals_eager(options, of_minicpm, tmp_path):
    options = ExportOptions(backend="xnnpack", **options)
    report = export_checkpoint(of_minicpm, tmp_path / "m.pte", options)
    assert_as_planned(report, of_minicpm)
    assert_verified(report.output, of_minicpm)
    if options.scheme == "weight-only":
        _assert_equals_eager(report.output, of_minicpm, options)


@pytest.mark.thorough
def test_vulkan_with_rotation_in_halves(of_minicpm, tmp_path):
    options = ExportOptions("weight-only")
    report = export_checkpoint(of_minicpm, tmp_path / "m.pte", options)
    assert_as_planned(report, of_minicpm)
    _assert_equals_eager(report.output, of_minicpm, options)
