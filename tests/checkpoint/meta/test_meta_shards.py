"""Meta's model-parallel shards are joined to the tensors they were cut from."""

import gguf
import pytest
import torch
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError


def write_meta_shards(folder, count, embedding_axis):
    """As Meta's model parallelism slices a model."""
    folder = tiny.write_meta(folder)
    (folder / "consolidated.00.pth").unlink()
    shards = [{} for _ in range(count)]
    for name, tensor in tiny.float_tensors().items():
        by_columns = name.endswith(("wo.weight", "w2.weight"))
        axis = embedding_axis if name.startswith("tok") else int(by_columns)
        slices = tensor.chunk(count, axis) if tensor.dim() == 2 else [tensor] * count
        for shard, part in zip(shards, slices, strict=True):
            shard[name] = part.clone()
    for index, shard in enumerate(shards):
        torch.save(shard, folder / f"consolidated.{index:02}.pth")
    return folder


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("embedding_axis", [0, 1])
def test_meta_shards(tmp_path, count, embedding_axis):
    folder = write_meta_shards(tmp_path, count, embedding_axis)
    tensors, expected = open_float_model(folder).tensors, tiny.float_tensors()
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize("count", [1, 2])
def test_frequencies_in_every_layer_as_llama_1_has_them(tmp_path, count):
    """The gguf package knows their name, and llama.cpp's converter leaves them out."""
    name = "layers.0.attention.inner_attention.rope.freqs"
    assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2).get_name(name)
    folder = write_meta_shards(tmp_path, count, 0)
    for shard in folder.glob("*.pth"):
        torch.save(torch.load(shard) | {name: torch.ones(8)}, shard)
    assert set(open_float_model(folder).tensors) == set(tiny.float_tensors())


def test_a_missing_meta_shard_is_named(tmp_path):
    folder = write_meta_shards(tmp_path, 4, 0)
    (folder / "consolidated.01.pth").unlink()
    with pytest.raises(InputError, match=r"expected consolidated\.00\.pth, consolidated\.01"):
        open_float_model(folder)


def test_shards_of_two_models_of_one_shape(tmp_path):
    folder = write_meta_shards(tmp_path, 2, 0)
    other = torch.load(folder / "consolidated.01.pth") | {"norm.weight": torch.ones(64)}
    torch.save(other, folder / "consolidated.01.pth")
    with pytest.raises(InputError, match=r"norm\.weight differs between shards"):
        open_float_model(folder).tensors["norm.weight"]


def test_a_shard_of_another_model_is_named(tmp_path):
    folder = write_meta_shards(tmp_path, 2, 0)
    torch.save({"norm.weight": torch.ones(64)}, folder / "consolidated.01.pth")
    with pytest.raises(InputError, match="is not in every shard"):
        open_float_model(folder)
