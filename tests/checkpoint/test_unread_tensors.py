"""No stored tensor goes unread without being named, in any format."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny
from tests.support.models.peers import (
    TOLERANCE,
    backbone_of,
    change_config,
    exact_logits,
    random_model,
    random_tokens,
    relative_error,
    saved,
)
from transformers import AutoModelForCausalLM

from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.quantize.pipeline import convert_model

EXTRA = torch.ones(4, 4)


def opened(path):
    return (open_checkpoint if is_quantized(path) else open_float_model)(path)


def with_more(folder, **more):
    """`folder`, of one safetensors file, with more tensors in it."""
    file = folder / "model.safetensors"
    save_file(load_file(file) | {name: value.clone() for name, value in more.items()}, file)
    return folder


def sources(folder, hugging_face, meta, in_gguf):
    """A folder or file of each format with another tensor, of a name in the format's manner."""
    for method in ("gptq", "awq", "compressed-tensors"):
        yield with_more(folders.write_quantized(folder / method, method), **{hugging_face: EXTRA})
    yield with_more(tiny.write_hugging_face(folder / "hf"), **{hugging_face: EXTRA})
    yield with_more(tiny.write_checkpoint(folder / "layout"), **{meta: EXTRA})
    yield tiny.write_meta(folder / "meta", tiny.float_tensors() | {meta: EXTRA})
    yield ggufs.write_gguf(folder / "m.gguf", extra={in_gguf: EXTRA})


@pytest.mark.parametrize(
    "names",
    [
        ("model.layers.0.self_attn.sinks", "layers.0.attention.sinks", "blk.0.attn_sinks.weight"),
        ("model.extra.weight", "extra.weight", "extra.weight"),
        ("model.layers.1.mlp.up_proj.bias", "layers.1.feed_forward.w3.bias", "blk.1.ffn_up.bias"),
        ("lm_head.bias", "output.bias", "output.bias"),
        ("audio_tower.conv.weight", "conv.weight", "conv.weight"),
    ],
)
def test_a_tensor_that_no_part_takes_is_named(tmp_path, names):
    for source in sources(tmp_path, *names):
        with pytest.raises(
            InputError, match=r"not known to this architecture|but mlp_bias is false"
        ):
            opened(source)


def test_an_unknown_tensor_of_integers_is_named_as_one(tmp_path):
    """A mask of older attention, or what training counted; not a weight that is quantized."""
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    own = with_more(
        tiny.write_hugging_face(tmp_path / "hf"), **{"model.layers.0.self_attn.bias": mask}
    )
    steps = tiny.float_tensors() | {"steps": torch.tensor([5])}
    for source in (own, tiny.write_meta(tmp_path / "meta", steps)):
        with pytest.raises(InputError, match="not known to this architecture"):
            open_float_model(source)


def test_tensors_instead_of_missing_ones_are_also_named(tmp_path):
    """Such as three matrices that were put together."""
    folder = tiny.write_hugging_face(tmp_path / "a")
    tensors = load_file(folder / "model.safetensors")
    at = "model.layers.1.self_attn"
    parts = [tensors.pop(f"{at}.{part}_proj.weight") for part in "qkv"]
    save_file(tensors | {f"{at}.qkv_proj.weight": torch.cat(parts)}, folder / "model.safetensors")
    expected = r"q_proj\.weight.* are missing, and tensor \S+\.qkv_proj\.weight is not known"
    with pytest.raises(InputError, match=expected):
        open_float_model(folder)


def test_buffers_that_every_model_computes_are_harmless(tmp_path):
    names = ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0.attn.masked_bias",
             "model.rotary_emb.cos_cached", "model.layers.0.mlp._extra_state")  # fmt: skip
    more = dict.fromkeys(names, EXTRA) | {"model.position_ids": torch.arange(4)}
    opened(with_more(tiny.write_hugging_face(tmp_path / "a"), **more))
    angles = {"freqs_cis": torch.ones(8, dtype=torch.complex64)}  # torchtitan's
    (tmp_path / "params.json").write_text(json.dumps(tiny.PARAMS))
    torch.save(tiny.float_tensors() | angles, tmp_path / "model.pt")
    opened(tmp_path)


def test_a_tensor_that_is_there_twice(tmp_path):
    whole = "model.layers.0.self_attn.q_proj.weight"
    for source in (
        with_more(folders.write_quantized(tmp_path / "a", "gptq"), **{whole: torch.ones(64, 64)}),
        with_more(tiny.write_hugging_face(tmp_path / "b"), **{f"language_model.{whole}": EXTRA}),
    ):
        with pytest.raises(InputError, match=r"the tensor \S+q_proj\.weight twice"):
            opened(source)


def test_an_output_layer_that_is_not_the_embedding_counts(tmp_path):
    """As for transformers 5, whatever config.json says; and it is said."""
    saved(random_model("Llama", tie_word_embeddings=False), tmp_path)
    change_config(tmp_path, tie_word_embeddings=True)
    model, tokens = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), random_tokens(12)
    with torch.no_grad():
        ours = backbone_of(tmp_path)(tokens, torch.tensor([0]))
        assert relative_error(ours, exact_logits(model, tokens)[:, -1:]) < TOLERANCE
    (note,) = open_float_model(tmp_path).notes
    assert "lm_head.weight holds other values" in note


def test_a_tied_table_that_is_called_the_output_layer(tmp_path):
    """By safetensors' `save_model`, which keeps one of the names of one tensor."""
    tensors = tiny.float_tensors(tied=True)
    folder = tiny.write_hugging_face(tmp_path, tensors, tie_word_embeddings=True)
    save_model(AutoModelForCausalLM.from_pretrained(folder), str(folder / "model.safetensors"))
    assert "model.embed_tokens.weight" not in load_file(folder / "model.safetensors")
    found = open_float_model(folder).tensors
    assert set(found) == set(tensors)
    assert torch.equal(found["tok_embeddings.weight"], tensors["tok_embeddings.weight"])


def test_an_output_layer_that_is_the_embedding_in_a_wider_type(tmp_path):
    """As training with an adapter saves one that it did not change."""
    tensors = tiny.float_tensors(tied=True)
    folder = tiny.write_hugging_face(tmp_path, tensors, dtype=torch.bfloat16)
    output = tensors["tok_embeddings.weight"].bfloat16().float()
    with_more(change_config(folder, tie_word_embeddings=True), **{"lm_head.weight": output})
    model = open_float_model(folder)
    assert "output.weight" not in model.tensors and not model.notes


def test_of_a_quantized_folder_too(tmp_path):
    source = change_config(
        folders.write_quantized(tmp_path / "in", "gptq"), tie_word_embeddings=True
    )
    checkpoint = open_checkpoint(source)
    assert checkpoint.output_kind == "fp" and len(checkpoint.notes) == 1
    assert convert_model(source, tmp_path / "out").notes == list(checkpoint.notes)
    stored = load_file(source / "model.safetensors")
    with_more(source, **{"lm_head.weight": stored["model.embed_tokens.weight"]})
    checkpoint = open_checkpoint(source)
    assert checkpoint.output_kind == "tied" and not checkpoint.notes
