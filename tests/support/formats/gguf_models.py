"""Models of transformers as GGUF files: names by the gguf package, changes as llama.cpp's
converter makes them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from tests.support.formats.gguf_conversions import Tensors
from tests.support.formats.gguf_files import gguf_file


@dataclass(frozen=True)
class Conversion:
    """What llama.cpp's converter makes of a model.

    `interleaved`: whether it puts the rows of Q and K in that order. `norms_plus_one`: whether it
    adds 1 to the weights of norms. `figures(config)`: metadata beyond a Llama's, by the names of
    the gguf package's writer (`add_{name}`), or texts and numbers by keys that it lacks; None
    stands for one that is not written.
    `tensors(tensors, config)`: its tensors changed, by their names in transformers.
    `figures_of_tensors(tensors)`: metadata that are tensors in transformers. `fields`:
    of the model's configuration, those that a GGUF can not or need not say, in place of the row's.
    """

    architecture: str
    interleaved: bool = False
    norms_plus_one: bool = False
    figures: Callable[[Any], dict[str, Any]] = lambda config: {}
    tensors: Callable[[Tensors, Any], Tensors] = lambda tensors, config: tensors
    figures_of_tensors: Callable[[Tensors], dict[str, Any]] = lambda tensors: {}
    fields: dict[str, Any] = field(default_factory=dict)


def write_gguf_model(
    path: Path,
    model: transformers.PreTrainedModel,
    conversion: Conversion,
    q4_0: dict | None = None,
) -> Path:
    """`model` with float32 tensors, without a tokenizer. `q4_0`: GGUF name -> blocks to use
    instead, uint8 [..., bytes of a row]."""
    config = model.config.get_text_config()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[conversion.architecture], config.num_hidden_layers)
    with gguf_file(path, conversion.architecture) as writer:
        of_tensors = conversion.figures_of_tensors(model.state_dict())
        figures = _figures(config) | of_tensors | conversion.figures(config)
        for name, value in figures.items():
            if value is not None and not hasattr(writer, f"add_{name}"):
                add = writer.add_string if isinstance(value, str) else writer.add_float32
                add(f"{conversion.architecture}.{name}", value)
            elif value is not None:
                getattr(writer, f"add_{name}")(value)
        for name, tensor in _changed(model, conversion).items():
            known = names.get_name(_called_by_gguf(name), try_suffixes=(".weight", ".bias"))
            found = name if name.startswith("blk.") else known
            assert found is not None, name
            if q4_0 and found in q4_0:
                writer.add_tensor(found, q4_0[found], raw_dtype=gguf.GGMLQuantizationType.Q4_0)
            else:
                writer.add_tensor(found, tensor.float().contiguous().numpy())
        for which in ("short", "long"):
            divisors = (getattr(config, "rope_parameters", None) or {}).get(f"{which}_factor")
            if divisors:
                tensor = torch.tensor(divisors, dtype=torch.float32)
                writer.add_tensor(f"rope_factors_{which}.weight", tensor.numpy())
    return path


def _figures(config: Any) -> dict[str, Any]:
    """Those of every architecture."""
    rope = getattr(config, "rope_parameters", None) or {}
    return {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads,
        "head_count_kv": config.to_dict()["num_key_value_heads"],
        "key_length": _head_dim(config),
        "value_length": _head_dim(config),
        "layer_norm_rms_eps": getattr(config, "rms_norm_eps", None),
        "rope_freq_base": rope.get("full_attention", rope).get("rope_theta"),
    }


def _head_dim(config: Any) -> int:
    # As it is stated: Gemma 4's is not one for all layers, and its class gives none.
    return config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads


def _changed(
    model: transformers.PreTrainedModel, conversion: Conversion
) -> dict[str, torch.Tensor]:
    changed = {}
    sees = any(name.startswith("model.language_model.") for name in model.state_dict())
    for stored, tensor in model.state_dict().items():
        if sees and not stored.startswith(("model.language_model.", "lm_head.")):
            continue
        name = stored.replace("model.language_model.", "model.")
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        queries_or_keys = re.search(r"[qk]_proj\.(weight|bias)$", name)
        if queries_or_keys and conversion.interleaved:
            halves = tensor.unflatten(0, (-1, 2, _head_dim(model.config) // 2))
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        if name.endswith("conv.conv.weight"):
            tensor = tensor.squeeze(1)
        if name.endswith("norm.weight") and conversion.norms_plus_one:
            tensor = tensor + 1
        if ".experts." in name and model.config.model_type == "llama4_text":
            tensor = tensor.transpose(1, 2)
        if name.endswith("experts.gate_up_proj"):
            for part, half in zip(("gate", "up"), tensor.chunk(2, dim=1), strict=True):
                changed[f"{name.replace('gate_up', part)}.weight"] = half
        elif name.endswith("experts.down_proj"):
            changed[f"{name}.weight"] = tensor
        else:
            changed[name] = tensor
    return conversion.tensors(changed, model.config.get_text_config())


def _called_by_gguf(name: str) -> str:
    """transformers 5 calls Granite's experts and router otherwise than the gguf package knows."""
    name = name.replace("block_sparse_moe.experts", "mlp.experts")
    name = name.replace("feed_forward.expert_bias", "feed_forward.expert_bias.bias")
    return name.replace("block_sparse_moe.router", "block_sparse_moe.router.layer")
