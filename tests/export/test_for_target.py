"""What is asked for is checked first, and a target's choice is explained."""

import subprocess
import sys

import pytest
from tests.support.models.tiny_checkpoint import write_checkpoint

from quatrain.errors import InputError
from quatrain.export import ExportRequest, export_checkpoint, export_for_target
from quatrain.int4 import Scheme
from quatrain.stages import Stages

REFUSED = {
    "an unknown target": ({"target": "mali"}, "known are"),
    "a target for another backend": (
        {"target": "mali-g715", "backend": "xnnpack"}, "--target mali-g715 is a GPU, for the Vul",
    ),
    "a runtime without a target": (
        {"runtime": "1.3"}, "--runtime has no effect without --target; name the device",
    ),
    "a runtime for a CPU": (
        {"runtime": "1.3", "backend": "xnnpack"}, "without --target; leave it out: --backend xnn",
    ),
    "a runtime that is none": ({"target": "mali-g715", "runtime": "new"}, "no ExecuTorch version"),
    "a runtime that cannot run what is written": (
        {"target": "pixel-8", "runtime": "1.1"}, "1.1: nothing is exported for it: it registers no",
    ),
    "half precision on the CPU": (
        {"backend": "xnnpack", "activation_dtype": "fp16"}, "fp16 is for the Vulkan backend",
    ),
    "a context of nothing": ({"max_seq_len": 2}, "--max-seq-len is 2, expected 3 or more"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_as_it_is_asked_for(case):
    asked, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        ExportRequest(**asked)


def test_the_verb_checks_without_torch():
    program = (
        "import sys\n"
        "from quatrain.cli import main\n"
        "sys.argv = ['quatrain', 'export', 'nowhere', '-o', 'm.pte', '--runtime', '1.3']\n"
        "try:\n    main()\n"
        "except SystemExit as error:\n    print(error.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "2 False\n", done.stderr


def test_reasons_come_before_the_first_stage(tmp_path):
    said = []
    report = export_for_target(
        write_checkpoint(tmp_path / "c", n_layers=3),
        tmp_path / "m.pte",
        ExportRequest(target="mali-g715", runtime="1.3"),
        stages=Stages(lambda name, seconds: said.append(name)),
        explain=said.append,
    )
    choice = report.options.target
    assert (choice.gpu, choice.runtime) == ("mali-g715", "1.3")
    assert said[: len(choice.reasons)] == choice.reasons
    # Prompts of 64 tokens fit the sums of 64 channels, and in fp32 zero points are int8.
    assert report.options.scheme == choice.scheme == Scheme.DYNAMIC_INT8
    assert choice.activation_dtype == "fp32"
    assert any("fp32: in fp16, dq8ca-zp-binding-float" in reason for reason in choice.reasons)
    assert report.options.activation_dtype == choice.activation_dtype


def test_what_is_asked_for_is_not_chosen(tmp_path):
    asked = ExportRequest(Scheme.WEIGHT_ONLY, activation_dtype="fp32", target="pixel-8")
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=3)
    report = export_for_target(checkpoint, tmp_path / "m.pte", asked)
    assert report.options.scheme == Scheme.WEIGHT_ONLY
    assert report.options.activation_dtype == "fp32"


def test_without_a_target_it_is_an_export_by_default(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c")
    said = []
    report = export_for_target(checkpoint, tmp_path / "m.pte", ExportRequest(), explain=said.append)
    default = export_checkpoint(checkpoint, tmp_path / "default.pte")
    assert report.options == default.options
    assert said == []
    assert (tmp_path / "m.pte").read_bytes() == (tmp_path / "default.pte").read_bytes()
