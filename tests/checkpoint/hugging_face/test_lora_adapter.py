"""LoRA adapters: merged into their model as PEFT does, or named where that is not given."""

import json
import re
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import save_file
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.quantize.pipeline import quantize_model

Q, EMBEDDING = "model.layers.0.self_attn.q_proj", "model.embed_tokens"


def matrices() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        f"{Q}.lora_A.weight": (8, 64),
        f"{Q}.lora_B.weight": (64, 8),
        f"{EMBEDDING}.lora_embedding_A": (4, 272),
        f"{EMBEDDING}.lora_embedding_B": (64, 4),
        "model.norm.weight": (64,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_adapter(folder: Path, tensors=None, **fields) -> Path:
    folder.mkdir()
    tensors = matrices() if tensors is None else tensors
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    ranks = {
        name.partition(".lora_")[0]: len(matrix)
        for name, matrix in tensors.items()
        if name.partition(".lora_")[2].startswith(("A", "embedding_A")) and matrix.ndim
    }
    said = {
        "peft_type": "LORA", "r": 8, "rank_pattern": ranks, "lora_alpha": 16,
        "base_model_name_or_path": "a/llama",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(said | fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "of_query", "of_embedding"),
    [
        ({}, 16 / 8, 16 / 4),
        ({"use_rslora": True}, 16 / 8**0.5, 16 / 4**0.5),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 4}}, 4 / 8, 16 / 4),
    ],
)
def test_merged_weights(tmp_path, fields, of_query, of_embedding):
    """peft 0.21's `merge_and_unload` of these gave the same, to float32's rounding."""
    base = tiny.write_hugging_face(tmp_path / "base")
    adapter, parts = write_adapter(tmp_path / "adapter", **fields), matrices()
    found, before = open_float_model(adapter, base).tensors, tiny.float_tensors()
    query, embedding = "layers.0.attention.wq.weight", "tok_embeddings.weight"
    change = parts[f"{Q}.lora_B.weight"] @ parts[f"{Q}.lora_A.weight"]
    assert torch.allclose(found[query], before[query] + of_query * change, atol=1e-5)
    change = parts[f"{EMBEDDING}.lora_embedding_B"] @ parts[f"{EMBEDDING}.lora_embedding_A"]
    assert torch.allclose(
        found[embedding], before[embedding] + of_embedding * change.t(), atol=1e-5
    )
    assert torch.equal(found["norm.weight"], parts["model.norm.weight"])
    other = "layers.1.attention.wq.weight"
    assert torch.equal(found[other], before[other])


def test_biases_that_were_trained(tmp_path):
    """peft 0.21's `merge_and_unload` of these gave the same, to float32's rounding; of a linear
    without a bias it raises."""
    with_biases = tiny.float_tensors(attention_qkv_bias=True)
    base = tiny.write_hugging_face(tmp_path / "base", with_biases, attention_bias=True)
    parts = {name: matrix for name, matrix in matrices().items() if name.startswith(Q)}
    change = torch.linspace(-1, 1, 64)
    adapter = write_adapter(tmp_path / "adapter", parts | {f"{Q}.lora_B.bias": change})
    name = "layers.0.attention.wq.bias"
    expected = open_float_model(base).tensors[name] + 16 / 8 * change
    assert torch.equal(open_float_model(adapter, base).tensors[name], expected)
    # By the names that the modules have in training, as in a state dict that PEFT did not save.
    named = {f"{Q}.lora_{part}.default.weight": parts[f"{Q}.lora_{part}.weight"] for part in "AB"}
    named[f"{Q}.lora_B.default.bias"] = change
    adapter = write_adapter(tmp_path / "named", named)
    assert torch.equal(open_float_model(adapter, base).tensors[name], expected)
    short = write_adapter(tmp_path / "short", parts | {f"{Q}.lora_B.bias": change[:32]})
    with pytest.raises(InputError, match=r"lora_B.bias \[32\] for .*q_proj.bias does not fit"):
        open_float_model(short, base)
    without = tiny.write_hugging_face(tmp_path / "without")
    with pytest.raises(InputError, match=r"peft does not merge .* either; train one without lora_"):
        open_float_model(adapter, without)


def test_patterns_name_modules_as_they_are_called_in_training(tmp_path):
    """Of a model that also sees by its own names, not by those of its text model."""
    base, text = tmp_path / "base", "model.language_model.layers.0.self_attn.q_proj"
    theirs = {
        tiny.renamed(name, tiny.HF_NAMES, "model.language_model.layers"): tensor
        for name, tensor in tiny.float_tensors().items()
    }
    tiny.write_hugging_face(base)
    save_file(theirs, base / "model.safetensors")
    inside = {"text_config": tiny.HUGGING_FACE, "model_type": "llava"}
    (base / "config.json").write_text(json.dumps(inside | {"tie_word_embeddings": False}))
    parts = {
        f"{text}.{part}": matrices()[f"{Q}.{part}"] for part in ("lora_A.weight", "lora_B.weight")
    }
    stated = {"r": 4, "rank_pattern": {text: 8}, "alpha_pattern": {text: 32}}
    found = open_float_model(write_adapter(tmp_path / "adapter", parts, **stated), base).tensors
    query = "layers.0.attention.wq.weight"
    change = parts[f"{text}.lora_B.weight"] @ parts[f"{text}.lora_A.weight"]
    assert torch.allclose(found[query], tiny.float_tensors()[query] + 32 / 8 * change, atol=1e-5)


def test_lengths_that_were_trained(tmp_path):
    """DoRA's; the same of peft 0.21's merged models, of both to 4e-7 in logits."""
    base = tiny.write_hugging_face(tmp_path / "base")
    lengths = {f"{Q}.lora_magnitude_vector": torch.linspace(1, 2, 64)}
    lengths |= {f"{EMBEDDING}.lora_magnitude_vector": torch.linspace(3, 4, 64)}
    plain = open_float_model(write_adapter(tmp_path / "plain"), base).tensors
    adapter = write_adapter(tmp_path / "adapter", matrices() | lengths, use_dora=True)
    found = open_float_model(adapter, base).tensors
    for name, dim in (("layers.0.attention.wq.weight", 1), ("tok_embeddings.weight", 0)):
        expected = torch.nn.functional.normalize(plain[name], dim=dim)
        of = lengths[f"{Q if dim else EMBEDDING}.lora_magnitude_vector"]
        assert torch.allclose(found[name], expected * (of[:, None] if dim else of), atol=1e-5)
    for shape, said in ((8, "[8]"), (0, "[0]")):
        wrong = matrices() | lengths | {f"{Q}.lora_magnitude_vector": torch.ones(shape)}
        with pytest.raises(InputError, match=re.escape(f"{said} for {Q}.weight")):
            open_float_model(write_adapter(tmp_path / said, wrong, use_dora=True), base)
    with pytest.raises(InputError, match=r"has a lora_magnitude_vector .*use_dora is None"):
        open_float_model(write_adapter(tmp_path / "unsaid", matrices() | lengths), base)


ROWS = f"{EMBEDDING}.token_adapter.trainable_tokens_delta"


@pytest.mark.parametrize("stated", [[3, 270], {"embed_tokens": [3, 270]}])
@pytest.mark.parametrize("tied", [False, True])
def test_tokens_that_were_trained_alone(tmp_path, stated, tied):
    """Of a tied model they are the output layer's too, as in peft 0.21."""
    tensors = tiny.float_tensors(tied=tied)
    base = tiny.write_hugging_face(tmp_path / "base", tensors, tie_word_embeddings=tied)
    low_rank = {name: tensor for name, tensor in matrices().items() if name.startswith(Q)}
    rows = {ROWS: torch.ones(2, 64)}
    adapter = write_adapter(tmp_path / "a", low_rank | rows, trainable_token_indices=stated)
    expected = tensors["tok_embeddings.weight"].clone()
    expected[[3, 270]] = 1
    found = open_float_model(adapter, base).tensors
    assert torch.equal(found["tok_embeddings.weight"], expected)
    assert ("output.weight" in found) is not tied


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ([3, 272], r"\[2, 64\] for the 2 tokens .* does not fit .*resized"),
        ([3], r"\[2, 64\] for the 1 tokens"),
        ({"lm_head": [3, 4]}, "expected a list of the tokens of model.embed_tokens.weight"),
        (["3", "4"], "expected a list of the tokens"),
    ],
)
def test_tokens_that_do_not_fit_are_named(tmp_path, stated, message):
    base = tiny.write_hugging_face(tmp_path / "base")
    rows = {ROWS: torch.ones(2, 64)}
    with pytest.raises(InputError, match=message):
        open_float_model(write_adapter(tmp_path / "a", rows, trainable_token_indices=stated), base)


def test_trained_tokens_beside_a_tied_output_layers_own(tmp_path):
    """Rows of its own, or matrices, which come to the embedding's rows: as in peft 0.21, to 8e-7 in
    logits. Merged there and saved, the two would be tied again, and its own changes lost."""
    tensors = tiny.float_tensors(tied=True)
    base = tiny.write_hugging_face(tmp_path / "base", tensors, tie_word_embeddings=True)
    rows, own = torch.ones(1, 64), torch.full((2, 64), 2.0)
    embedding = tensors["tok_embeddings.weight"].clone()
    embedding[3] = 1
    output = tensors["tok_embeddings.weight"].clone()
    output[[3, 7]] = 2
    delta = "token_adapter.trainable_tokens_delta"
    stated = {"embed_tokens": [3], "lm_head": [3, 7]}
    adapter = write_adapter(
        tmp_path / "a", {ROWS: rows, f"lm_head.{delta}": own}, trainable_token_indices=stated
    )
    found = open_float_model(adapter, base).tensors
    assert torch.equal(found["tok_embeddings.weight"], embedding)
    assert torch.equal(found["output.weight"], output)

    a, b = torch.randn(8, 64), torch.randn(272, 8)
    parts = {ROWS: rows, "lm_head.lora_A.weight": a, "lm_head.lora_B.weight": b}
    adapter = write_adapter(tmp_path / "b", parts, trainable_token_indices=[3])
    found = open_float_model(adapter, base).tensors
    assert torch.equal(found["tok_embeddings.weight"], embedding)
    assert torch.allclose(found["output.weight"], embedding + 2 * b @ a, atol=1e-4)


def test_trained_tokens_beside_a_changed_output_layer(tmp_path):
    tied = tiny.float_tensors(tied=True)
    base = tiny.write_hugging_face(tmp_path / "base", tied, tie_word_embeddings=True)
    changes = {ROWS: torch.ones(1, 64), "lm_head.weight": torch.ones(272, 64)}
    with pytest.raises(InputError, match=r"'trainable_token_indices' is .*merge it with peft"):
        open_float_model(write_adapter(tmp_path / "a", changes, trainable_token_indices=[3]), base)


def test_it_is_quantized_with_its_base(tmp_path):
    base, adapter = tiny.write_hugging_face(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    quantize_model(adapter, tmp_path / "out", base=base, method="rtn")
    open_checkpoint(tmp_path / "out").check_values()
    with pytest.raises(InputError, match="holds another model"):
        quantize_model(adapter, base, base=base, method="rtn")


def test_without_its_base_it_is_named(tmp_path):
    adapter = write_adapter(tmp_path / "adapter")
    for opened in (open_float_model, open_checkpoint):
        with pytest.raises(InputError, match=r"is an adapter of 'a/llama'.*--base FOLDER"):
            opened(adapter)
    (adapter / "config.json").write_text(json.dumps(tiny.HUGGING_FACE))  # the base's, as some have
    with pytest.raises(InputError, match="is an adapter"):
        open_float_model(adapter)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "LOHA"}, "'peft_type' is 'LOHA'"),
        ({"use_dora": True}, r"has no lora_magnitude_vector for .*use_dora is True"),
        (
            {"trainable_token_indices": [3]},
            r"lists tokens, but the adapter holds no rows .* for them",
        ),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "'target_parameters' is"),
        ({"init_lora_weights": "pissa"}, "'init_lora_weights' is 'pissa'.*merge it with peft"),
        ({"lora_alpha": "16"}, "'lora_alpha' is '16'"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "'layer_replication' is.*peft does not .*either"),
        ({"alora_invocation_tokens": [5, 6]}, "'alora_invocation_tokens' is.*train one without"),
        ({"kasa_config": {"beta": 1e-4}}, "'kasa_config' is"),
        ({"monteclora_config": {}}, "'monteclora_config' is"),
        ({"alpha_pattern": {"layers.[0-3": 4}}, r"alpha_pattern has 'layers\.\[0-3', which is not"),
        ({"rank_pattern": {"(": 4}}, r"json: its rank_pattern has '\(', which is not a valid"),
        (
            {"rank_pattern": {"q_proj": 16, "embed_tokens": 4}},
            "q_proj is 16, but its .* rank 8",
        ),
        ({"rank_pattern": {"embed_tokens": 4}, "r": 4}, "self_attn.q_proj is 4, but its .* rank 8"),
    ],
)
def test_what_cannot_be_merged_is_named(tmp_path, fields, message):
    base = tiny.write_hugging_face(tmp_path / "base")
    with pytest.raises(InputError, match=message):
        open_float_model(write_adapter(tmp_path / "adapter", **fields), base)


def test_an_adapter_of_another_model(tmp_path):
    base = tiny.write_hugging_face(tmp_path / "base")
    wide = {f"{Q}.lora_A.weight": torch.ones(8, 32), f"{Q}.lora_B.weight": torch.ones(64, 8)}
    with pytest.raises(InputError, match=r"do not fit the shape \[64, 64\]"):
        open_float_model(write_adapter(tmp_path / "a", wide), base)
    unknown = {name.replace("q_proj", "qkv"): tensor for name, tensor in wide.items()}
    with pytest.raises(InputError, match="which the model in --base does not have"):
        open_float_model(write_adapter(tmp_path / "b", unknown), base)


@pytest.mark.parametrize(
    ("part", "shape", "message"),
    [
        (f"{Q}.lora_A.weight", (), r"matrices \[\] and \[64, 8\] for .*q_proj"),
        (f"{Q}.lora_A.weight", (64,), "do not fit"),
        (f"{Q}.lora_A.weight", (0, 64), "do not fit"),
        (f"{Q}.lora_B.weight", (64,), "do not fit"),
        (f"{EMBEDDING}.lora_embedding_A", (), "do not fit"),
        (f"{Q}.lora_A", (8, 64), "has only lora_B of .*q_proj.weight"),
        ("model.layers.1.self_attn.q_proj.lora_B.bias", (64,), "has only lora_B.bias of "),
        (f"{EMBEDDING}.lora_B.bias", (64,), "has lora_B.bias for .*, but no lora_A of a linear"),
    ],
)
def test_damaged_matrices_are_named(tmp_path, part, shape, message):
    base = tiny.write_hugging_face(tmp_path / "base")
    parts = matrices() | {part: torch.ones(shape)}
    if part.endswith(".lora_A"):
        parts = {name: tensor for name, tensor in parts.items() if not name.startswith(part)}
    with pytest.raises(InputError, match=f"adapter: .*{message}"):
        open_float_model(write_adapter(tmp_path / "adapter", parts), base)


def test_an_adapter_with_nan_is_named_and_not_its_base(tmp_path):
    """The message must not name the base, which would be downloaded again."""
    base = tiny.write_hugging_face(tmp_path / "base")
    parts = {f"{Q}.lora_A.weight": torch.ones(8, 64), f"{Q}.lora_B.weight": torch.ones(64, 8)}
    parts[f"{Q}.lora_B.weight"][3, 2] = torch.nan
    model = open_float_model(write_adapter(tmp_path / "adapter", parts), base)
    with pytest.raises(InputError, match=r"adapter: its matrices for .*q_proj.*NaN"):
        model.tensors["layers.0.attention.wq.weight"]


def test_wrappers_in_an_adapters_names(tmp_path):
    base = tiny.write_hugging_face(tmp_path / "base")
    wrapped = {
        name.replace("layers.0.", "layers.0._orig_mod."): t for name, t in matrices().items()
    }
    found = open_float_model(write_adapter(tmp_path / "a", wrapped), base).tensors
    expected = open_float_model(write_adapter(tmp_path / "b"), base).tensors
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_adapter_of_a_model_with_more_tokens(tmp_path):
    """As training with added tokens leaves it, beside the model as it was before."""
    base = tiny.write_hugging_face(tmp_path / "base")
    tables = {f"{EMBEDDING}.weight": torch.ones(280, 64)}
    with pytest.raises(
        InputError, match=r"\[280, 64\].*\[272, 64\].*resize_token_embeddings\(280\)"
    ):
        open_float_model(write_adapter(tmp_path / "a", tables), base)


def test_training_files_beside_an_adapter_are_not_a_model(tmp_path):
    """The files of a checkpoint-500 of transformers' Trainer."""
    base = tiny.write_hugging_face(tmp_path / "base")
    parts = {f"{Q}.lora_A.weight": torch.ones(8, 64), f"{Q}.lora_B.weight": torch.ones(64, 8)}
    adapter = write_adapter(tmp_path / "checkpoint-500", parts)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({}, adapter / name)
    assert open_float_model(adapter, base).tensors


def test_a_chat_template_without_a_tokenizer_is_said_to_be_unread(tmp_path):
    base = tiny.write_hugging_face(tmp_path / "base")
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    model.save(str(base / "tokenizer.json"))
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("its own")
    for copied in (False, True):  # as the note has it
        if copied:
            (adapter / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
        opened = open_float_model(adapter, base)
        assert any("has chat_template.jinja but no" in note for note in opened.notes) != copied
        tokenizer = opened.tokenizer()
        assert tokenizer
        assert tokenizer.chat_template == ("its own" if copied else None)


def test_a_base_without_an_adapter(tmp_path):
    model = tiny.write_hugging_face(tmp_path / "model")
    with pytest.raises(InputError, match=r"holds no adapter.*leave out the option"):
        open_float_model(model, model)


def test_an_adapter_nearby_is_pointed_at(tmp_path):
    """By its file, or by the folder of training's checkpoints."""
    base = tiny.write_hugging_face(tmp_path / "base")
    (tmp_path / "out").mkdir()
    write_adapter(tmp_path / "out" / "checkpoint-500")
    newest = write_adapter(tmp_path / "out" / "checkpoint-1000")
    for given in (newest / "adapter_model.safetensors", newest.parent):
        with pytest.raises(InputError, match=r"give .*/checkpoint-1000, which holds one"):
            open_float_model(given, base)
    with pytest.raises(InputError, match=r"such as .*/checkpoint-1000"):
        open_float_model(newest.parent)
    assert open_float_model(newest, base).tensors


def test_of_several_adapters_all_are_named(tmp_path):
    """As PEFT saves those that have names, or what a Trainer left beside its last one."""
    base = tiny.write_hugging_face(tmp_path / "base")
    (tmp_path / "out").mkdir()
    for name in ("poems", "prose"):
        write_adapter(tmp_path / "out" / name)
    with pytest.raises(InputError, match=r"give .*/prose, .*or another that does \(poems\)"):
        open_float_model(tmp_path / "out", base)


def test_a_model_and_its_adapter_the_other_way_round(tmp_path):
    base, adapter = tiny.write_hugging_face(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    with pytest.raises(
        InputError, match=r"exchange the two paths: .*/adapter is the adapter .*/base`"
    ):
        open_float_model(base, adapter)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["adapter_config.json", "adapters.safetensors"], r"an MLX adapter .*mlx_lm\.fuse"),
        (["adapters.safetensors", "0000100_adapters.safetensors"], r"an MLX adapter .*fuse"),
        (["adapter_config.json"], r"adapter_model\.safetensors of the adapter is missing"),
        (["adapter_model.bin"], r"adapter_config\.json of the adapter is missing"),
    ],
)
@pytest.mark.parametrize("base", [None, "base"])
def test_an_incomplete_peft_adapter(tmp_path, names, message, base):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=message):
        open_float_model(tmp_path, base)


def test_an_output_layer_trained_apart_from_the_embedding(tmp_path):
    """As `modules_to_save` of a tied model has it; the merged model is no longer tied."""
    tied = tiny.float_tensors(tied=True)
    base = tiny.write_hugging_face(tmp_path / "base", tied, tie_word_embeddings=True)
    output = torch.randn(272, 64, generator=torch.Generator().manual_seed(1))
    adapter = write_adapter(tmp_path / "adapter", {"lm_head.weight": output})
    model = open_float_model(adapter, base)
    assert torch.equal(model.tensors["output.weight"], output)
    assert "lm_head.weight holds other values" in model.notes[0]


def test_an_embedding_and_the_output_layer_tied_to_it_are_changed_apart(tmp_path):
    """The logits of peft 0.21's model before it is merged; merged it adds the one's change to both,
    and warns that it may."""
    tied, parts = tiny.float_tensors(tied=True), matrices()
    base = tiny.write_hugging_face(tmp_path / "base", tied, tie_word_embeddings=True)
    before = tied["tok_embeddings.weight"]
    found = open_float_model(write_adapter(tmp_path / "embedding"), base)
    assert not torch.equal(found.tensors["tok_embeddings.weight"], before)
    assert torch.equal(found.tensors["output.weight"], before)
    assert "keeps the base's weights" in found.notes[0]
    change = {"A": torch.ones(2, 64), "B": torch.ones(272, 2)}
    of_output = {f"lm_head.lora_{part}.weight": change[part] for part in "AB"}
    found = open_float_model(write_adapter(tmp_path / "output", of_output), base).tensors
    assert torch.equal(found["tok_embeddings.weight"], before)
    assert torch.allclose(found["output.weight"], before + 16 / 2 * 2, atol=1e-5)
    both = parts | of_output
    kept = write_adapter(tmp_path / "kept", both, ensure_weight_tying=True)
    assert "output.weight" not in open_float_model(kept, base).tensors
    lengths = torch.linspace(1, 2, 272)
    of_output["lm_head.lora_magnitude_vector"] = lengths
    own = {name: matrix for name, matrix in parts.items() if name.startswith(EMBEDDING)}
    own[f"{EMBEDDING}.lora_magnitude_vector"] = torch.ones(64)
    fields = {"ensure_weight_tying": True, "use_dora": True}
    found = open_float_model(write_adapter(tmp_path / "dora", own | of_output, **fields), base)
    assert torch.allclose(found.tensors["output.weight"].norm(dim=1), lengths, atol=1e-5)
    assert torch.allclose(found.tensors["tok_embeddings.weight"].norm(dim=0), torch.ones(64))


def test_tokens_of_an_output_layer_alone_are_not_of_the_embedding_tied_to_it(tmp_path):
    """The logits of peft 0.21's model before it is merged."""
    tied = tiny.float_tensors(tied=True)
    base = tiny.write_hugging_face(tmp_path / "base", tied, tie_word_embeddings=True)
    rows = {"lm_head.token_adapter.trainable_tokens_delta": torch.ones(1, 64)}
    adapter = write_adapter(tmp_path / "a", rows, trainable_token_indices={"lm_head": [3]})
    found, before = open_float_model(adapter, base).tensors, tied["tok_embeddings.weight"]
    assert torch.equal(found["tok_embeddings.weight"], before)
    assert torch.equal(found["output.weight"][3], torch.ones(64))
    assert torch.equal(found["output.weight"][4:], before[4:])


def test_a_quantized_base_is_named(tmp_path):
    base = folders.write_quantized(tmp_path / "base", "gptq")
    with pytest.raises(InputError, match=r"to merge .*give the original model"):
        open_float_model(write_adapter(tmp_path / "adapter"), base)


def test_an_adapter_beside_a_whole_model_is_said(tmp_path):
    model = tiny.write_hugging_face(tmp_path / "model")
    for file in write_adapter(tmp_path / "adapter").iterdir():
        file.rename(model / file.name)
    assert "adapter_model.safetensors) is not merged" in open_float_model(model).notes[0]
    (model / "adapters.safetensors").write_bytes(b"")
    assert (
        "The MLX adapter beside the model (adapters.safetensors) is not"
        in open_float_model(model).notes[0]
    )
