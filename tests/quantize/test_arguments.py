"""What can be refused at once is: before anything is fetched, opened or imported."""

import os
import subprocess
import sys

import pytest
from tests.support.command_line import invoked
from tests.support.models import tiny_models as tiny

from quatrain.errors import InputError
from quatrain.quantize.arguments import check_arguments, check_calibration
from quatrain.quantize.convert_options import ConvertOptions
from quatrain.quantize.pipeline import convert_model, quantize_model

# message -> (output, group size)
MISTAKES = {
    "group size 48 is not supported, expected one of 32, 64, 128, 256": ("out", 48),
    "group size 16 is not supported, expected one of 32, 64, 128, 256, or --backend vulkan: only "
    "its kernels support 16": ("out", 16),
    "is a file, expected a folder": ("file", 32),
    "is a link to": ("link", 32),
    "holds another model (config.json)": ("other", 32),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Holds outputs that cannot be; nothing may be fetched or opened."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    tiny.write_hugging_face(tmp_path / "other")
    for module in ("smollm2.fetch_smollm2", "quantize.pipeline.local_path"):
        monkeypatch.setattr(f"quatrain.{module}", lambda *_: pytest.fail("it is fetched"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said_by(command, *arguments):
    error = invoked([command, *arguments]).exception
    assert isinstance(error, InputError)
    return str(error)


@pytest.mark.parametrize("message", MISTAKES)
def test_before_anything_is_fetched(folder, message):
    output, group_size = MISTAKES[message]
    options = ("--group-size", str(group_size))
    assert message in said_by("quantize", "smollm2", "-o", output, *options)
    assert message in said_by("convert", "hf://owner/name", output, *options)
    with pytest.raises(InputError) as caught:
        quantize_model("hf://owner/name", output, group_size, method="rtn")
    assert message in str(caught.value)
    with pytest.raises(InputError) as caught:
        convert_model("hf://owner/name", output, ConvertOptions(group_size=group_size))
    assert message in str(caught.value)


# message -> what is given to `quantize`
OF_FILES = {
    "--method rtn does not use a calibration text": ("--method", "rtn", "--for", "both"),
    "--calibration none.txt: cannot be read as text": ("--calibration", "none.txt"),
    "none.json: no such file": ("--tokenizer", "none.json"),
}


@pytest.mark.parametrize("message", OF_FILES)
def test_what_is_to_be_read_beside_a_model_is_looked_at_before_that_is_fetched(folder, message):
    for model in ("smollm2", "hf://owner/name"):
        assert message in said_by("quantize", model, "-o", "out", *OF_FILES[message])
    if "--tokenizer" in OF_FILES[message]:
        assert message in said_by("convert", "hf://owner/name", "out", *OF_FILES[message])


def test_a_text_from_a_pipe_is_left_for_who_calibrates_with_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for a writer
    check_calibration("gptq", [tmp_path / "pipe"])


def test_convert_takes_groups_of_16_where_they_are_vulkans(tmp_path):
    tiny.write_hugging_face(tmp_path / "m")
    words = ("convert", tmp_path / "m", tmp_path / "out", "--group-size", "16")
    assert invoked([*words, "--backend", "vulkan"]).exit_code == 0
    assert "--backend vulkan" in said_by(*words)


def test_a_source_in_the_output_is_named_when_its_files_are_known(tmp_path):
    source = tiny.write_hugging_face(tmp_path / "m")
    check_arguments(source, source, 32)
    with pytest.raises(InputError, match=r"holds the source model \(model\.safetensors\)"):
        quantize_model(source, source, method="rtn")


def test_a_name_that_the_system_refuses(tmp_path):
    for name in ("a\0b", "a" * 5000):
        for write in (quantize_model, convert_model):
            with pytest.raises(InputError, match="cannot be read"):
                write(name, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_torch_is_not_imported_for_it(tmp_path):
    source = tiny.write_hugging_face(tmp_path / "m")
    code = (
        "import sys; from quatrain.quantize.arguments import check_arguments; "
        f"check_arguments({str(source)!r}, 'out', 32); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
