"""From named tensors to a backbone that runs, in either activation scheme."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from quatrain.backbone.block import Block
from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.model import Backbone
from quatrain.backbone.state import (
    IsInt4Table,
    as_float32,
    by_kind,
    by_values,
    embedding_format,
    experts_apart,
    is_int8_output,
    state_for,
    with_columns,
)
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.linear import Int4Linear, Int8DynActInt8WeightLinear, QuantizedGroupEmbedding
from quatrain.transform.adaptation import (
    transform_down_projection_for_spinquant,
    transform_linear_for_lora_after_quantization,
)
from quatrain.transform.pre_quantization import (
    transform_embedding_for_pre_quantization,
    transform_linear_for_pre_quantization,
    transform_output_linear_for_pre_quantization,
)


def build_backbone(
    config: BackboneConfig,
    tensors: Mapping[str, torch.Tensor],
    scheme: Scheme = Scheme.DYNAMIC_INT8,
    *,
    group_size: int = 32,
    max_seq_len: int | None = None,
    embedding_input: bool = False,
    hidden_output: bool = False,
    blocks: bool = True,
    table_kinds: Mapping[str, str] | None = None,
) -> Backbone:
    """A float32 `Backbone` on the given tensors, its linears in `scheme`.

    `tensors` is in the pre-quantized layout (`tensor_shapes`), or floating point throughout, in
    which case `scheme` and `group_size` have no effect. int8 tensors are used as stored,
    memory-mapped if they were; floating-point tensors are converted to float32. The mapping itself
    and its tensors are left unchanged.

    `max_seq_len` is the context to allocate (by default the config's). Embeddings are its input, or
    hidden states its output, if the config says so. Tables of the whole vocabulary are pruned by
    the config's pruning maps. Without `blocks` it has no layers. `table_kinds`: "int4", "int8" or
    "fp" by "tok_embeddings" and "output", for tensors without values, from which the kind cannot be
    inferred. Raises `InputError` if a tensor is missing, left over, or does not fit the config.
    """
    config = replace(config, max_seq_len=max_seq_len or config.max_seq_len)
    embedding_input = embedding_input or not config.apply_embedding
    hidden_output = hidden_output or not config.apply_output
    if embedding_input and config.per_layer_dim:
        raise InputError(
            "a model with an embedding for each layer (per_layer_dim) needs token ids, and cannot "
            "have embeddings as its input"
        )
    is_int4_table = by_values if table_kinds is None else by_kind(table_kinds)
    state = state_for(config, tensors, embedding_input, hidden_output)
    state = with_columns(state, group_size, is_int4_table)
    with torch.device("meta"):
        backbone = Backbone(config, embedding_input, hidden_output, blocks)
    _quantize_linears(backbone, state, group_size, scheme)
    _quantize_tables(backbone, state, is_int4_table)
    _fill_zero_points(backbone, state)
    _load(backbone, state)
    return backbone.eval().requires_grad_(False)


def load_layer(config: BackboneConfig, index: int, tensors: Mapping[str, torch.Tensor]) -> Block:
    """Layer `index` in floating point, from the tensors of a whole model; only its own are read.

    Raises `InputError` as `build_backbone` does.
    """
    prefix = f"layers.{index}."
    own = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    state = experts_apart({name: as_float32(tensors[prefix + name]) for name in own})
    with torch.device("meta"):
        block = Block(config, config.layer(index))
    _load(block, state)
    if config.use_spin_quant:
        transform_down_projection_for_spinquant(block)
    return block.eval().requires_grad_(False)


def _quantize_linears(
    backbone: Backbone, state: Mapping[str, torch.Tensor], group_size: int, scheme: Scheme
) -> None:
    """Replace each linear by the quantized form that `state` has for it."""
    if is_int8_output(state):
        output = {name: tensor for name, tensor in state.items() if name.startswith("output.")}
        transform_output_linear_for_pre_quantization(backbone, output, torch.float32)
    transform_linear_for_pre_quantization(
        backbone, state, group_size, torch.float32, weight_only=scheme == Scheme.WEIGHT_ONLY
    )
    transform_linear_for_lora_after_quantization(backbone, state)
    if backbone.config.use_spin_quant:
        transform_down_projection_for_spinquant(backbone)


def _quantize_tables(
    backbone: Backbone, state: dict[str, torch.Tensor], is_int4_table: IsInt4Table
) -> None:
    """The same of the embeddings."""
    _quantize_per_layer_embeddings(backbone, state)
    if "tok_embeddings.scales" in state:
        bit_width, group_size = embedding_format(state, is_int4_table)
        transform_embedding_for_pre_quantization(
            backbone, state, torch.float32, bit_width, group_size
        )


def _quantize_per_layer_embeddings(backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
    """That table is int4 where it is quantized, in groups of a size of its own."""
    scales = state.get("per_layer.embeddings.scales")
    if scales is None:
        return
    assert backbone.per_layer is not None
    rows, columns = state["per_layer.embeddings.weight"].shape
    backbone.per_layer.embeddings = QuantizedGroupEmbedding(
        rows,
        columns,
        group_size=columns // scales.shape[1],
        bit_width=4,
        device=torch.device("meta"),
    )


def _fill_zero_points(backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
    """Give each quantized linear its all-zero zero points: one stored number, seen as many."""
    device = next(iter(state.values())).device
    for name, module in backbone.named_modules():
        if isinstance(module, Int4Linear | Int8DynActInt8WeightLinear):
            state[f"{name}.zeros"] = torch.zeros(1, device=device).expand(module.scales.shape)
    state.pop("tok_embeddings.zeros", None)


def _load(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    try:
        missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        # torch lists every mismatch; the first line after its heading names one tensor.
        detail = str(error).splitlines()[1].strip()
        raise InputError(f"the tensors do not fit params.json: {detail}") from error
    if missing:
        raise InputError(f"{missing[0]}: is missing from the checkpoint; params.json asks for it")
    if unexpected:
        raise InputError(
            f"{unexpected[0]}: has no place in the backbone that params.json describes"
        )
