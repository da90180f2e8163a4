"""The names of each Vulkan operator's arguments, by position, its outputs last.

Source: the operators' schemas in ATen, torchao and `executorch/backends/vulkan`
(`custom_ops_lib.py`) of ExecuTorch 1.5; a delegate graph stores only the values.
"""

from functools import cache
from typing import Any

_INT8_WEIGHTED = (
    "input_scale input_zero_point weights weight_sums weight_scales output_scale "
    "output_zero_point bias"
)
ARGUMENTS: dict[str, tuple[str, ...]] = {
    kind: tuple(names.split())
    for kind, names in {
        "et_vk.prepack": "x out",
        "sym_size": "x dim out",
        "add": "a b out",
        "sub": "a b out",
        "mul": "a b out",
        "floordiv": "a b out",
        "et_vk.select_as_symint": "x dim index out",
        "et_vk.rms_norm": "x weight eps out",
        "et_vk.apply_rotary_emb": "xq xk freqs_cos freqs_sin out",
        "et_vk.apply_rotary_emb_hf": "xq xk freqs_cos freqs_sin start_pos out",
        "et_vk.apply_rotary_emb_interleaved": "x freqs_cis out",
        "et_vk.conv_with_clamp": (
            "x weights bias stride padding dilation transposed output_padding groups "
            "output_min output_max out"
        ),
        "et_vk.linear_q4gsw": "x weights weight_scales group_size bias out",
        "et_vk.linear_dq8ca_q4gsw": (
            "x input_scales input_zero_points weights weight_sums weight_scales group_size bias out"
        ),
        "et_vk.linear_qcs4w": "x weights weight_scales out",
        "et_vk.linear_qcs8w": "x weights weight_scales out",
        "et_vk.linear_q8ta_q8csw": (
            "x input_scale input_zero_point weights weight_sums weight_scales bias out"
        ),
        "et_vk.q8ta_linear": f"x {_INT8_WEIGHTED} activation out",
        "et_vk.q8ta_linear_gemv": f"x {_INT8_WEIGHTED} activation out",
        **dict.fromkeys(
            ("et_vk.q8ta_conv2d", "et_vk.q8ta_conv2d_pw", "et_vk.q8ta_conv2d_dw"),
            f"x {_INT8_WEIGHTED} kernel_size stride padding dilation groups activation out",
        ),
        "et_vk.q8ta_conv2d_transposed": (
            f"x {_INT8_WEIGHTED} kernel_size stride padding output_padding dilation groups "
            "activation out"
        ),
        "et_vk.q8ta_add": (
            "a b a_scale a_zero_point b_scale b_zero_point output_scale output_zero_point alpha out"
        ),
        "et_vk.q8ta_relu": "x input_scale input_zero_point output_scale output_zero_point out",
        "et_vk.q8ta_pixel_shuffle": (
            "x input_scale input_zero_point output_inv_scale output_zero_point upscale_factor out"
        ),
        "et_vk.grid_priors": "x stride offset out",
        "quantized_decomposed.quantize_per_tensor": (
            "x scale zero_point quant_min quant_max dtype out"
        ),
        "quantized_decomposed.dequantize_per_tensor": (
            "x scale zero_point quant_min quant_max dtype out_dtype out"
        ),
        "et_vk.embedding_q4gsw": ("weights weight_scales group_size indices is_linear_weight out"),
        "et_vk.sdpa": "q k v attn_mask scale out",
        "torchao.choose_qparams_affine": (
            "x mapping_type block_size target_dtype quant_min quant_max eps "
            "scale_dtype zero_point_dtype keepdim out"
        ),
        "torchao.quantize_affine": (
            "x block_size scale zero_point output_dtype quant_min quant_max out"
        ),
        "torchao.dequantize_affine": (
            "x block_size scale zero_point input_dtype quant_min quant_max output_dtype out"
        ),
        "sdpa_with_kv_cache": (
            "q k v k_cache v_cache start_pos seq_len attn_mask dropout_p is_causal scale out"
        ),
        "update_cache": "value cache start_pos out",
        "custom_sdpa": "q k v start_pos attn_mask dropout_p is_causal scale out",
        "aten.embedding": "weights indices padding_idx scale_grad_by_freq sparse out",
        "aten.slice_copy": "x dim start end step out",
        "aten.select_copy": "x dim index out",
        "aten.view_copy": "x size out",
        "aten.expand_copy": "x size implicit out",
        "aten.repeat": "x repeats out",
        "aten.permute_copy": "x dims out",
        "aten.permute": "x dims out",
        "aten.transpose_copy": "x dim0 dim1 out",
        "aten.t_copy": "x out",
        "aten.unsqueeze_copy": "x dim out",
        "aten.squeeze_copy": "x dims out",
        "aten.clone": "x memory_format out",
        "aten._to_copy": "x dtype layout device pin_memory non_blocking memory_format out",
        "dim_order_ops._to_dim_order_copy": "x dtype layout device pin_memory non_blocking "
        "dim_order out",
        "dim_order_ops._clone_dim_order": "x non_blocking dim_order out",
        "aten.cat": "tensors dim out",
        "aten.split_with_sizes_copy": "x split_sizes dim out",
        "aten.split_copy": "x split_size dim out",
        **dict.fromkeys(("aten.add", "aten.sub"), "a b alpha out"),
        **dict.fromkeys(
            (
                "aten.mul",
                "aten.div",
                "aten.minimum",
                "aten.eq",
                "aten.ne",
                "aten.ge",
                "aten.gt",
                "aten.le",
                "aten.lt",
                "aten.logical_and",
                "aten.logical_or",
                "aten.bitwise_and",
                "aten.bitwise_or",
                "aten.mm",
                "aten.bmm",
            ),
            "a b out",
        ),
        **dict.fromkeys(
            (
                "aten.neg",
                "aten.abs",
                "aten.rsqrt",
                "aten.sqrt",
                "aten.exp",
                "aten.log10",
                "aten.sin",
                "aten.cos",
                "aten.tanh",
                "aten.relu",
                "aten.silu",
                "aten.sigmoid",
                "aten.round",
                "aten.hardswish",
                "aten.bitwise_not",
                "aten.logical_not",
                "aten.alias_copy",
            ),
            "x out",
        ),
        "aten.pow": "x exponent out",
        "aten.gelu": "x approximate out",
        "aten.leaky_relu": "x negative_slope out",
        "aten.hardshrink": "x lambd out",
        **dict.fromkeys(("aten.clamp", "aten.hardtanh"), "x low high out"),
        **dict.fromkeys(("aten.mean", "aten.sum"), "x dims keepdim dtype out"),
        **dict.fromkeys(
            ("aten.amax", "aten.amin", "aten.argmax", "aten.argmin"), "x dims keepdim out"
        ),
        **dict.fromkeys(("aten._softmax", "aten._log_softmax"), "x dim half_to_float out"),
        "aten.full": "size fill_value dtype layout device pin_memory out",
        "aten.full_like": "x fill_value dtype layout device pin_memory memory_format out",
        **dict.fromkeys(("aten.ones", "aten.zeros"), "size dtype layout device pin_memory out"),
        **dict.fromkeys(
            ("aten.ones_like", "aten.zeros_like"),
            "x dtype layout device pin_memory memory_format out",
        ),
        "aten.scalar_tensor": "value dtype layout device pin_memory out",
        "aten.arange": "start end step dtype layout device pin_memory out",
        "aten.flip": "x dims out",
        "aten.unfold_copy": "x dim size step out",
        "aten.pixel_shuffle": "x upscale_factor out",
        "aten.constant_pad_nd": "x pad value out",
        "aten.index_select": "x dim index out",
        "aten.index": "x indices out",
        "aten.gather": "x dim index sparse_grad out",
        "aten.where": "condition a b out",
        "aten.addmm": "bias a b beta alpha out",
        "aten.linear": "x weights bias out",
        "aten._weight_int8pack_mm": "x weights weight_scales out",
        "aten.native_layer_norm": "x normalized_shape weight bias eps out",
        "aten.convolution": (
            "x weights bias stride padding dilation transposed output_padding groups out"
        ),
    }.items()
}

# The same, as earlier exporters called them.
EARLIER_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "et_vk.embedding_q4gsw": ("weights", "weight_scales", "group_size", "indices", "out"),
}

# The same, of another overload.
_OVERLOAD_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "aten.div": ("a", "b", "rounding_mode", "out"),  # Tensor_mode
}

# The schemas' defaults of arguments that a call may omit. Graphs store None for every dtype.
DEFAULTS: dict[str, Any] = {
    name: default
    for default, names in (
        (
            None,
            "dtype target_dtype output_dtype input_dtype out_dtype scale_dtype zero_point_dtype",
        ),
        (None, "layout device pin_memory memory_format dim_order rounding_mode bias attn_mask"),
        (None, "scale eps quant_min quant_max start end"),
        (False, "keepdim is_causal implicit non_blocking is_linear_weight"),
        (False, "scale_grad_by_freq sparse sparse_grad"),
        (1, "alpha beta step"),
        (0, "dim dropout_p"),
        (-1, "padding_idx"),
        ("none", "approximate"),
    )
    for name in names.split()
}

# Operators that are of no use to anyone with other arguments than these.
STRICT = {
    "et_vk.linear_q4gsw",
    "et_vk.linear_dq8ca_q4gsw",
    "et_vk.embedding_q4gsw",
    "torchao.choose_qparams_affine",
    "sdpa_with_kv_cache",
    "custom_sdpa",
    "et_vk.sdpa",
    "update_cache",
    "aten.embedding",
    "aten.view_copy",
}

_NAMESPACES = ("aten", "et_vk", "torchao", "quantized_decomposed", "dim_order_ops", "llama")


def argument_names(kind: str, count: int) -> tuple[str, ...] | None:
    """The names of `count` arguments of an operator; None if they are not known."""
    for table in (ARGUMENTS, EARLIER_ARGUMENTS, _OVERLOAD_ARGUMENTS):
        if len(table.get(kind, ())) == count:
            return table[kind]
    return None


@cache
def operator_kind(name: str) -> str:
    """`name` without its overload: 'aten.add.Tensor' -> 'aten.add', 'sym_size.int' -> 'sym_size'.

    The `llama` namespace is dropped, as Vulkan graphs do by themselves.
    """
    parts = name.split(".")
    if parts[0] == "llama":
        parts = parts[1:]
    return ".".join(parts[:2]) if parts[0] in _NAMESPACES else parts[0]
