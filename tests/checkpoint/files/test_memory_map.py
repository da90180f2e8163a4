"""Mapped files: pages are let go of, tensors stay, and nobody's changes are lost."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from quatrain.checkpoint.files.memory_map import only_read, release_mapped
from quatrain.checkpoint.files.safetensors import read_safetensors


def resident(tensor):
    """Kilobytes in memory of the mapping that `tensor` lies in."""
    address, inside = tensor.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            inside = start <= address < end
        elif inside and line.startswith("Rss:"):
            return int(line.split()[1])
    raise AssertionError("not mapped")


def test_pages_are_let_go_of_and_read_again(tmp_path):
    weight = torch.randn(1000, 1000)
    save_file({"w": weight}, tmp_path / "m.safetensors")
    with only_read():
        mapped = read_safetensors(tmp_path / "m.safetensors")["w"]
    assert torch.equal(mapped, weight)
    assert resident(mapped) > 3900
    release_mapped()
    assert resident(mapped) < 200
    assert torch.equal(mapped, weight)


def test_a_tensor_may_be_written_to_which_reaches_neither_the_file_nor_is_lost(tmp_path):
    save_file({"w": torch.zeros(4)}, tmp_path / "m.safetensors")
    mapped = read_safetensors(tmp_path / "m.safetensors")["w"]
    mapped += 1
    release_mapped()
    assert mapped.tolist() == [1, 1, 1, 1]
    assert read_safetensors(tmp_path / "m.safetensors")["w"].tolist() == [0, 0, 0, 0]
