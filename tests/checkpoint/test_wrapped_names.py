"""Models under a wrapper's names, in a training script's checkpoint, or not fetched at all."""

import json
import shlex
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models import tiny_models as tiny
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.peers import saved

from quatrain.checkpoint.open import open_float_model
from quatrain.errors import InputError
from quatrain.quantize.pipeline import quantize_model

WQ = "layers.0.attention.wq.weight"


def written_with(folder, rename, **fields):
    """A Hugging Face folder whose tensors are called as `rename` says."""
    folder = tiny.write_hugging_face(folder, **fields)
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(name): w for name, w in tensors.items()}, folder / "model.safetensors")
    return folder


PREFIXES = [
    "_orig_mod.", "module.", "base_model.model.", "module._orig_mod.", "_fsdp_wrapped_module.",
    "model.", "language_model.", "base_model.model.module.", "net.", "policy.module.", "llama.",
    "pretrained_model.", "model.model.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_hugging_face_names(tmp_path, prefix):
    model = open_float_model(written_with(tmp_path, lambda name: prefix + name))
    expected = tiny.float_tensors()
    assert set(model.tensors) == set(expected)
    assert all(torch.equal(model.tensors[name], tensor) for name, tensor in expected.items())


def test_wrappers_within_names(tmp_path):
    def compiled(name):
        return name.replace("layers.1.", "layers.1._orig_mod._checkpoint_wrapped_module.")

    model = open_float_model(written_with(tmp_path, compiled))
    assert set(model.tensors) == set(tiny.float_tensors())


def test_parts_wrapped_for_data_parallel_training(tmp_path):
    model = open_float_model(
        written_with(tmp_path, lambda name: name.replace("mlp.", "mlp.module."))
    )
    assert set(model.tensors) == set(tiny.float_tensors())


def test_a_model_without_its_output_layer(tmp_path):
    """As `LlamaModel.save_pretrained` writes one, whose output layer is tied."""
    folder = tiny.write_hugging_face(
        tmp_path, tiny.float_tensors(tied=True), tie_word_embeddings=True
    )
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / "model.safetensors")
    assert set(open_float_model(folder).tensors) == set(tiny.float_tensors(tied=True))


@pytest.mark.parametrize("name", ["lfm2", "gemma3n"])
def test_what_else_a_model_has_beside_its_output_layer(tmp_path, name):
    folder = saved(model_of(ROWS[name]), tmp_path)
    opened = open_float_model(folder).tensors
    expected = {name: opened[name].clone() for name in opened}
    bare = {
        name.removeprefix("model."): tensor.clone()
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(bare, folder / "model.safetensors")
    found = open_float_model(folder).tensors
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_two_names_of_one_tensor(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["_orig_mod.model.norm.weight"] = torch.zeros(64)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"both model\.norm\.weight of the model"):
        open_float_model(folder)


def test_an_adapter_that_was_not_merged(tmp_path):
    def adapted(name):
        return f"base_model.model.{name.replace('q_proj.', 'q_proj.base_layer.')}"

    with pytest.raises(InputError, match=r"q_proj\.base_layer.*merge_and_unload"):
        open_float_model(written_with(tmp_path / "lora", adapted))

    def trained_whole(name):
        return name.replace("lm_head.", "lm_head.modules_to_save.default.")

    with pytest.raises(InputError, match=r"lm_head\.modules_to_save.*merge_and_unload"):
        open_float_model(written_with(tmp_path / "head", trained_whole))


@pytest.mark.parametrize("name", ["model", "state_dict", "model_state_dict", "module"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "model."])
def test_a_training_scripts_checkpoint(tmp_path, name, prefix):
    tensors = {prefix + name: tensor for name, tensor in tiny.float_tensors().items()}
    beside = {"iter_num": 5, "config": {"lr": 1.0}, "sparse_tensor_module_names": {"x"}}
    torch.save({name: tensors} | beside, tmp_path / "ckpt.pt")
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    model = open_float_model(tmp_path)
    assert torch.equal(model.tensors[WQ], tiny.float_tensors()[WQ])


@pytest.mark.parametrize("path", [["net"], ["checkpoint", "weights"], ["state", "model"]])
def test_a_state_dict_under_any_name(tmp_path, path):
    """Where it is the only one: what an optimizer holds by tensor is none."""
    content: dict = tiny.float_tensors()
    for name in reversed(path):
        moments = {name: {"exp_avg": torch.ones(2, 2)} for name in tiny.float_tensors()}
        content = {name: content, "optimizer": {"state": moments, "param_groups": [{}]}, "step": 5}
    torch.save(content, tmp_path / "ckpt.pt")
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    assert torch.equal(open_float_model(tmp_path).tensors[WQ], tiny.float_tensors()[WQ])


def test_a_prefix_of_some_names_alone(tmp_path):
    """Of a value head's model, or an agent's: what is missing is there under another name."""
    folder = written_with(tmp_path, lambda name: f"actor.{name}")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"critic.weight": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"but actor\.lm_head\.weight is there"):
        open_float_model(folder)


def test_a_prefix_of_some_of_metas_names_alone(tmp_path):
    """A trainer's module, with a criterion beside the model."""
    tensors = {f"model.{name}": tensor for name, tensor in tiny.float_tensors().items()}
    content = {"state_dict": tensors | {"criterion.weight": torch.ones(3)}}
    torch.save(content, tmp_path / "ckpt.pt")
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    with pytest.raises(InputError, match=r"but model\.layers\.0\..*save only that part"):
        open_float_model(tmp_path)


@pytest.mark.parametrize(
    ("other", "inside"),
    [("state_dict", None), ("ema", None), ("ema", "shadow"), ("ema", "shadow_params")],
)
def test_two_models_in_one_checkpoint(tmp_path, other, inside):
    tensors = tiny.float_tensors()
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    for prefix in ("", "module.", "_orig_mod."):  # an average is taken of the model as it is, too
        twin = {prefix + name: tensor for name, tensor in tensors.items()}
        held = twin if inside is None else {"decay": 0.99, inside: twin}
        if inside == "shadow_params":  # of torch_ema
            held[inside] = list(twin.values())
        torch.save({"model": tensors, other: held}, tmp_path / "ckpt.pt")
        with pytest.raises(InputError, match=f"holds model and {other}, expected one model"):
            open_float_model(tmp_path)


def test_queries_keys_and_values_in_one(tmp_path):
    """As gpt-fast has them, with Meta's other names."""
    tensors = tiny.float_tensors()
    for layer in range(2):
        parts = [tensors.pop(f"layers.{layer}.attention.w{part}.weight") for part in "qkv"]
        tensors[f"layers.{layer}.attention.wqkv.weight"] = torch.cat(parts)
    torch.save(tensors, tmp_path / "model.pth")
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    model = open_float_model(tmp_path)
    for name, weight in tiny.float_tensors().items():
        assert torch.equal(model.tensors[name], weight), name
    (tmp_path / "params.json").rename(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(tiny.HUGGING_FACE))
    with pytest.raises(InputError, match=r"have gpt-fast's names \(layers\.0\.attention\.wqkv"):
        open_float_model(tmp_path)


@pytest.mark.parametrize("name", ["stories.pt", "model.safetensors"])
def test_weights_without_what_says_their_shape(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"put the one of {name} beside it"):
        open_float_model(tmp_path)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 12345\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_git_lfs_pointer_is_named(tmp_path, name):
    folder = tiny.write_hugging_face(tmp_path)
    if name.endswith(".bin"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name}: is a Git LFS pointer.*git lfs pull"):
        open_float_model(folder)


def test_a_tokenizer_that_is_a_git_lfs_pointer(tmp_path):
    folder = tiny.write_hugging_face(tmp_path / "in")
    (folder / "tokenizer.json").write_text(POINTER)
    with pytest.raises(InputError, match=r"tokenizer\.json: is a Git LFS pointer"):
        quantize_model(folder, tmp_path / "out", method="rtn")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["m.gguf", "consolidated.00.pth"])
def test_a_git_lfs_pointer_of_other_formats(tmp_path, name):
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name}: is a Git LFS pointer"):
        open_float_model(tmp_path / name if name == "m.gguf" else tmp_path)


# transformers', Qwen 3.5's and torchtune's.
@pytest.mark.parametrize("name", ["model", "model.safetensors", "ft-model"])
def test_shards_whose_index_is_not_there(tmp_path, name):
    folder = tiny.write_hugging_face(tmp_path, shards=3)
    (folder / "model.safetensors.index.json").unlink()
    for shard in folder.glob("model-*"):
        shard.rename(folder / shard.name.replace("model", name, 1))
    save_file({"other": torch.ones(1)}, folder / "consolidated.safetensors")
    assert set(open_float_model(folder).tensors) == set(tiny.float_tensors())
    (folder / f"{name}-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds 2 of 3 shards"):
        open_float_model(folder)


@pytest.mark.parametrize("pickled", [False, True])
def test_several_files_that_share_no_tensor(tmp_path, pickled):
    """As torchtune writes an epoch; those of two epochs are told."""
    folder = tiny.write_hugging_face(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    suffix, save = ("pt", torch.save) if pickled else ("safetensors", save_file)
    for number in (1, 2):
        part = {name: tensors[name] for name in sorted(tensors)[number - 1 :: 2]}
        save(part, folder / f"hf_model_000{number}_0.{suffix}")
    assert set(open_float_model(folder).tensors) == set(tiny.float_tensors())
    save(part, folder / f"hf_model_0002_1.{suffix}")
    with pytest.raises(InputError, match=r"found hf_model_0001_0.*, hf_model_0002_1.*keep"):
        open_float_model(folder)


def test_a_consolidated_model_in_several_files(tmp_path):
    """As Mistral's larger ones are, whose tensors are whole in each."""
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    tensors = tiny.float_tensors()
    for number in (1, 2):
        part = {name: tensors[name] for name in sorted(tensors)[number - 1 :: 2]}
        save_file(part, tmp_path / f"consolidated-0000{number}-of-00002.safetensors")
    found = open_float_model(tmp_path).tensors
    assert set(found) == set(tensors) and torch.equal(found[WQ], tensors[WQ])


def test_a_consolidated_file_beside_shards_of_other_names(tmp_path):
    """Mistral's repositories hold both; without a config.json the consolidated file is read."""
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    (folder / "config.json").unlink()
    save_file(tiny.float_tensors(), folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(tiny.PARAMS))
    assert torch.equal(open_float_model(folder).tensors[WQ], tiny.float_tensors()[WQ])


def test_sizes_that_a_training_script_put_beside_the_weights(tmp_path):
    """As llama2.c does, which writes no params.json: the command of the error makes it."""
    sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 272}
    sizes |= {"hidden_dim": 96, "max_seq_len": 128, "dropout": 0.1}
    tensors = tiny.float_tensors()
    saved = {"model": {f"_orig_mod.{name}": t for name, t in tensors.items()}, "iter_num": 5}
    torch.save(saved | {"model_args": sizes}, tmp_path / "ckpt.pt")
    with pytest.raises(InputError, match=r"its sizes are in ckpt\.pt: write them to") as caught:
        open_float_model(tmp_path)
    command = str(caught.value).split("`")[1]
    script = shlex.split(command)
    assert script[:5] == ["cd", str(tmp_path), "&&", "python", "-c"]
    subprocess.run([sys.executable, "-c", script[5]], cwd=tmp_path, check=True)
    found = open_float_model(tmp_path).tensors
    assert set(found) == set(tensors) and torch.equal(found[WQ], tensors[WQ])
