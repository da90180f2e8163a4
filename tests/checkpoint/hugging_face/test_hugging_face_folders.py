"""Which files of a Hugging Face folder are read, and what is said where they do not fit."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny
from tests.support.models.peers import change_config

from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError

MISSING = json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}})


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_whole_file_comes_before_an_index(suffix, tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    if suffix == "bin":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        (folder / "model.safetensors.index.json").write_text(MISSING)
    (folder / "pytorch_model.bin.index.json").write_text(MISSING)
    name = "layers.0.attention.wq.weight"
    assert torch.equal(open_float_model(folder).tensors[name], tiny.float_tensors()[name])


def test_a_whole_file_left_over_beside_shards(tmp_path):
    """As FSDP's training leaves one, of a few tensors."""
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    save_file({"model.norm.weight": torch.ones(64)}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"lacks lm_head\.weight, which .*remove model\.safetens"):
        open_float_model(folder)
    (folder / "model.safetensors").unlink()
    assert set(open_float_model(folder).tensors) == set(tiny.float_tensors())


@pytest.mark.parametrize("index", [True, False])
def test_shards_beside_a_whole_file_of_the_same_tensors_are_said_to_be_unread(tmp_path, index):
    folder = tiny.write_hugging_face(tmp_path, tiny.float_tensors(seed=1), shards=2)
    if not index:
        (folder / "model.safetensors.index.json").unlink()
    assert open_float_model(folder).notes == ()
    tiny.write_hugging_face(folder)
    opened = open_float_model(folder)
    assert torch.equal(opened.tensors["norm.weight"], tiny.float_tensors()["norm.weight"])
    assert opened.notes == (
        "model.safetensors is read, and model-00001-of-00002.safetensors and 1 more beside it are "
        "not. If one of those is the model, move model.safetensors out of the folder.",
    )


@pytest.mark.parametrize(
    "other",
    [
        "pytorch_model.bin",
        "consolidated.00.pth",
        "consolidated.safetensors",
        "model.fp16.safetensors",
    ],
)
def test_another_file_of_weights_beside_the_one_that_is_read_is_named(tmp_path, other):
    """As `save_pretrained` leaves one beside an older pytorch_model.bin."""
    folder = tiny.write_hugging_face(tmp_path)
    for left in ("optimizer_0.bin", "training_args.bin", "adapter_model.bin", other):
        (folder / left).write_bytes(b"")
    assert open_float_model(folder).notes == (
        f"model.safetensors is read, and {other} beside it is not. If that is the model, move "
        "model.safetensors out of the folder.",
    )
    (folder / "model.safetensors").unlink()
    tiny.write_hugging_face(folder, shards=2)
    assert open_float_model(folder).notes == (
        f"model-00001-of-00002.safetensors and 1 more are read, and {other} beside them is not. If "
        "that is the model, move them, and their index, out of the folder.",
    )


def test_another_file_of_weights_in_a_meta_folder_is_named(tmp_path):
    folder = tiny.write_meta(tmp_path / "float")
    save_file(tiny.float_tensors(seed=1), folder / "model.safetensors")
    assert open_float_model(folder).notes == (
        "consolidated.00.pth is read, and model.safetensors beside it is not. If that is the "
        "model, move consolidated.00.pth out of the folder.",
    )
    folder = tiny.write_checkpoint(tmp_path / "int4")
    assert open_checkpoint(folder).notes == ()
    (folder / "old.pth").write_bytes(b"")
    assert open_checkpoint(folder).notes == (
        "model.safetensors is read, and old.pth beside it is not. If that is the model, move "
        "model.safetensors out of the folder.",
    )


TORCHTUNE = {
    "attention.w": "attn.w", "attention_norm.weight": "sa_norm.scale", "feed_forward": "mlp",
    "ffn_norm.weight": "mlp_norm.scale",
}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [({}, "Meta's names .*its params.json"), (TORCHTUNE, "torchtune's names .*HFCheckpointer")],
)
@pytest.mark.parametrize("tied", [False, True])
def test_names_of_other_programs_beside_a_config_json(tmp_path, names, message, tied):
    folder = tiny.write_hugging_face(tmp_path, tie_word_embeddings=tied)
    tensors = tiny.float_tensors(tied=tied)
    for old, new in names.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=message):
        open_float_model(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"attention.wq": "self_attn.q_proj"}, "transformers' names .*the model's config.json"),
        (TORCHTUNE, "torchtune's names .*FullModelMetaCheckpointer"),
    ],
)
def test_names_of_other_programs_beside_a_params_json(tmp_path, names, message):
    names = names | {"attention": "attn", "feed_forward": "mlp"}
    tensors = tiny.float_tensors()
    for old, new in names.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    folder = tiny.write_meta(tmp_path, tensors)
    for opened in (open_float_model, open_checkpoint):
        with pytest.raises(InputError, match=message):
            opened(folder)


def test_a_checkpoint_of_lightning(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    state = {f"model.{name}": t for name, t in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save({"state_dict": state, "epoch": 3, "loops": {}}, folder / "last.ckpt")
    assert set(open_float_model(folder).tensors) == set(tiny.float_tensors())


def test_what_training_leaves_beside_a_model(tmp_path):
    """accelerate's FSDP calls the model pytorch_model_fsdp.bin."""
    folder = tiny.write_hugging_face(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model_fsdp.bin")
    (folder / "model.safetensors").unlink()
    for name in ("optimizer.bin", "scheduler.bin", "training_args.bin", "random_states_0.pkl"):
        torch.save({}, folder / name)
    torch.save({"epochs_run": 1}, folder / "recipe_state.pt")  # torchtune's
    assert set(open_float_model(folder).tensors) == set(tiny.float_tensors())


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_end_token_that_is_none_is_named_with_its_file(tmp_path, name):
    folder = tiny.write_hugging_face(tmp_path)
    content = json.loads((folder / "config.json").read_text()) if name == "config.json" else {}
    (folder / name).write_text(json.dumps(content | {"eos_token_id": ["</s>"]}))
    with pytest.raises(InputError, match=rf"/{name}: the field 'eos_token_id'"):
        open_float_model(folder)


@pytest.mark.parametrize("file", ["a" * 5000, "x\0y", "", ".", "../config.json", None])
def test_an_index_that_names_no_file_of_the_folder(file, tmp_path):
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(InputError, match="is not in the folder") as caught:
        open_float_model(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("missing", [False, True])
def test_an_index_that_names_the_shards_otherwise(tmp_path, missing):
    """With its own folder's path, or by their names before a conversion."""
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-", "pytorch_model-"))
    remedy = "if the model is model-00001-of-00002.safetensors and 1 more, remove the index"
    if missing:
        (folder / "model-00002-of-00002.safetensors").unlink()
        remedy = "in the folder; download the model's missing files"
    with pytest.raises(InputError, match=remedy):
        open_float_model(folder)
    if not missing:
        index.unlink()
        assert set(open_float_model(folder).tensors) == set(tiny.float_tensors())


@pytest.mark.parametrize("path", ["a" * 5000, "x\0y", "x/" + "a" * 300])
def test_a_path_that_cannot_be(path, tmp_path):
    for opened in (open_float_model, open_checkpoint):
        with pytest.raises(InputError, match=r"cannot be read|no such file") as caught:
            opened(tmp_path / path)
        assert len(str(caught.value)) < 1000
        with pytest.raises(InputError, match=r"-: .*standard input is not supported"):
            opened("-")


@pytest.mark.parametrize("settings", [{}, {"quant_method": "gptq", "checkpoint_format": "gptq"}])
def test_settings_of_an_older_autogptq(settings, tmp_path):
    folder = folders.write_quantized(tmp_path / "new", "gptq")
    expected = open_checkpoint(folder)
    change_config(folder, quantization_config=None)
    older = {"bits": 4, "group_size": folders.GROUP, "desc_act": False, "sym": True, **settings}
    (folder / "quantize_config.json").write_text(json.dumps(older))
    assert is_quantized(folder)
    assert folder / "quantize_config.json" in source_files(folder, None)
    found = open_checkpoint(folder)
    assert set(found.tensors) == set(expected.tensors)
    for name in expected.tensors:
        assert torch.equal(found.tensors[name], expected.tensors[name])
    with pytest.raises(InputError, match="is already quantized"):
        open_float_model(folder)


def with_settings(folder: Path, settings: dict) -> Path:
    """A model with a tensor that is not in floating point, and a quantizer's `settings`."""
    change_config(tiny.write_hugging_face(folder), quantization_config=settings)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("field", ["quantization_config", "quantization", "compression_config"])
@pytest.mark.parametrize(
    ("settings", "by"),
    [
        ({"num_bits": 4, "weights": {}}, "by an unnamed method"),  # trained for int4
        ({"quant_method": "compressed-tensors"}, "by compressed-tensors"),
        ({"quant_method": "hqq"}, "by hqq"),
    ],
)
def test_settings_of_a_quantizer_in_a_model_in_floating_point(tmp_path, field, settings, by):
    """Whatever they lack; without them it is read."""
    folder = change_config(tiny.write_hugging_face(tmp_path), **{field: settings})
    for opened in (open_checkpoint, open_float_model):
        with pytest.raises(InputError, match=f"quantized {by}, but all .* floating point; remove"):
            opened(folder)
    open_float_model(change_config(folder, drop=[field]))


@pytest.mark.parametrize("method", ["quip", "mxfp4", "exl2"])
def test_a_quantizer_that_is_not_read_is_named_before_its_tensors(tmp_path, method):
    """And no command advises another one that refuses it too."""
    folder = with_settings(tmp_path, {"quant_method": method})
    for opened in (open_checkpoint, open_float_model):
        with pytest.raises(
            InputError, match=f"quant_method is '{method}'.*quatrain quantize MODEL"
        ):
            opened(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "gptq", "bits": 5}, "has bits 5.*quantize the original model"),
        ({"group_size": 32, "bits": 4, "quant_method": "mlx"}, "MLX.*--requantize-asymmetric"),
    ],
)
def test_quantize_advises_no_verb_that_refuses_the_folder_too(tmp_path, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        open_float_model(with_settings(tmp_path, settings))
    assert "already quantized" not in str(caught.value)


def test_a_gguf_file_in_a_folder_without_weights_is_pointed_at(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "model.safetensors").unlink()
    ggufs.write_gguf(folder / "m.gguf")
    with pytest.raises(InputError, match=r"or give .*m\.gguf itself"):
        open_float_model(folder)


def test_settings_that_are_not_an_object(tmp_path):
    folder = change_config(tiny.write_hugging_face(tmp_path), quantization_config=["gptq"])
    for opened in (open_checkpoint, open_float_model):
        with pytest.raises(InputError, match=r"'quantization_config' is .*expected an object"):
            opened(folder)


def test_quantized_tensors_that_nothing_explains(tmp_path):
    folder = change_config(folders.write_quantized(tmp_path, "gptq"), quantization_config=None)
    for opened in (open_checkpoint, open_float_model):
        with pytest.raises(InputError, match=r"config\.json has no quantization_config"):
            opened(folder)


def test_a_quantized_folder_without_its_output_layer(tmp_path):
    folder = folders.write_quantized(tmp_path, "gptq")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head\.weight is missing.*not tied"):
        open_checkpoint(folder)
    assert open_checkpoint(change_config(folder, tie_word_embeddings=True)).output_kind == "tied"


def test_a_missing_params_json_is_not_mentioned(tmp_path):
    sources = [
        tiny.write_hugging_face(tmp_path / "a", num_hidden_layers=3),
        tiny.write_hugging_face(tmp_path / "b", intermediate_size=128),
        tiny.write_hugging_face(
            tmp_path / "c", tiny.float_tensors() | {"norm.weight": torch.ones(3)}
        ),
        ggufs.write_gguf(tmp_path / "d.gguf", metadata={"attention.key_length": 32}),
    ]
    for source in sources:
        with pytest.raises(InputError, match="its parameters belong to another model") as caught:
            open_float_model(source)
        assert "params.json" not in str(caught.value)


@pytest.mark.parametrize("below", ["weights/", "./", "a/b/"])
def test_shards_below_the_folder_are_read_as_transformers_reads_them(tmp_path, below):
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    (folder / below).mkdir(parents=True, exist_ok=True)
    for file in set(names.values()):
        (folder / file).rename(folder / below / file)
    moved = {name: below + file for name, file in names.items()}
    index.write_text(json.dumps({"metadata": {}, "weight_map": moved}))
    found = open_float_model(folder).tensors
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert torch.equal(found["norm.weight"], theirs["model.norm.weight"])
    query = "self_attn.q_proj.weight"
    assert torch.equal(found["layers.1.attention.wq.weight"], theirs[f"model.layers.1.{query}"])


def test_a_shard_that_is_missing_or_elsewhere_is_named(tmp_path):
    folder = tiny.write_hugging_face(tmp_path / "m", shards=2)
    (folder / "model-00002-of-00002.safetensors").rename(tmp_path / "away.safetensors")
    with pytest.raises(InputError, match="model-00002-of-00002"):
        open_float_model(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../away.safetensors"}}))
    with pytest.raises(InputError, match="not in the folder"):
        open_float_model(folder)
