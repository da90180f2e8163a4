"""Triggers of operators in a form that the runtime refuses, or computes as another one.

Each was measured on ExecuTorch's runtime; the sources are in the catalogue.
"""

from quatrain.program import Operator, Tensor, VulkanGraph
from quatrain.targets.triggers.occurrence import (
    PACKED_FROM_THE_END,
    Occurrence,
    Occurrences,
    fixed_value,
    operators,
    tensors_of,
)

_BATCH_NORM, _GROUP_NORM = "aten._native_batch_norm_legit_no_training", "aten.native_group_norm"
_NEAREST = "aten.upsample_nearest2d"
_INT8_LINEAR = "aten._weight_int8pack_mm"
_INPUTS_OF_A_TEXEL, _OUTPUTS_TOGETHER = 4, 8  # of linear_qcs4w
_AS_LAID_OUT = "export again, with tensors as ExecuTorch's partitioner lays them out"
_TAKEN = [0, 1, True]  # interpolation_mode, padding_mode, align_corners of grid_sampler_2d

_GRID_PRIORS = "et_vk.grid_priors"  # reads nothing of its input but the sizes
_CHANNELS_PACKED = (
    "aten.flip", "aten.avg_pool2d", "aten.max_pool2d", "aten.max_pool2d_with_indices",
    _BATCH_NORM, _GROUP_NORM, _NEAREST, "aten.upsample_bilinear2d",
    "aten.grid_sampler_2d", _GRID_PRIORS,
)  # fmt: skip


def norms_refused(graph: VulkanGraph) -> Occurrences:
    """Layer norms over several dimensions, batch and group norms of other than [N, C, H, W], group
    norms whose mean is in a texture, or a buffer of another order."""
    over = [
        (place, fixed_value(graph, operator, 1))
        for place, operator in operators(graph, "aten.native_layer_norm")
    ]
    several = [
        Occurrence(f"{place}: over {list(dims)}")
        for place, dims in over
        if isinstance(dims, list | tuple) and len(dims) > 1
    ]
    images = tensors_of(graph, (_BATCH_NORM, _GROUP_NORM))
    shaped = [
        Occurrence(f"{place}: of {list(x.shape)}") for place, _, x in images if len(x.shape) != 4
    ]
    moved = [
        Occurrence(f"{place}: a mean {mean.layout} in a {mean.storage}", remedy=_AS_LAID_OUT)
        for place, operator, _ in images
        if operator.kind == _GROUP_NORM and (mean := _moved_mean(graph, operator))
    ]
    return several + shaped + moved


def _moved_mean(graph: VulkanGraph, operator: Operator) -> Tensor | None:
    """The mean or deviation of a group norm that is elsewhere than the runtime takes it."""
    means = [graph.values[i] for i in graph.outputs_of(operator)[1:]]
    moved = (one for one in means if isinstance(one, Tensor) and not _is_plain_buffer(one))
    return next(moved, None)


def _is_plain_buffer(x: Tensor) -> bool:
    """Whether it is in a buffer with its elements in order."""
    packed = PACKED_FROM_THE_END.get(x.layout, 1)
    return x.storage in ("buffer", "default") and (packed == 1 or packed > len(x.shape))


def sampling_refused(graph: VulkanGraph) -> Occurrences:
    """`aten.grid_sampler_2d` but bilinear, with its border repeated and corners aligned, or by a
    grid that is not in a buffer in order."""
    for place, operator, grid in tensors_of(graph, ("aten.grid_sampler_2d",), at=1):
        given = [fixed_value(graph, operator, at) for at in (2, 3, 4)]
        if given != _TAKEN:
            yield Occurrence(f"{place}: options {given}")
        elif not _is_plain_buffer(grid):
            where = f"{place}: a grid {grid.layout} in a {grid.storage}"
            yield Occurrence(where, remedy=_AS_LAID_OUT)


def not_channels_packed(graph: VulkanGraph) -> Occurrences:
    """Operators of images that read or give what is in a buffer, or a texture of another layout."""
    for place, operator in operators(graph, *_CHANNELS_PACKED):
        read = () if operator.kind == _GRID_PRIORS else operator.args[:1]
        images = [graph.values[i] for i in (*read, *graph.outputs_of(operator)[:1])]
        for x in images:
            if isinstance(x, Tensor) and _is_laid_out_otherwise(x):
                yield Occurrence(f"{place}: {x.layout} in a {x.storage}")
                break


def _is_laid_out_otherwise(image: Tensor) -> bool:
    return image.storage == "buffer" or image.layout not in ("channels_packed", "default")


def linears_of_batches(graph: VulkanGraph) -> Occurrences:
    """Floating-point linears of [N, C, H, W] with several N, of int8 weights of several batches."""
    return [
        Occurrence(f"{place}: of {list(x.shape)}")
        for place, operator, x in tensors_of(graph, ("aten.linear", _INT8_LINEAR))
        if len(x.shape) > (2 if operator.kind == _INT8_LINEAR else 3) and x.shape[0] > 1
    ]


def channel_wise_linears_refused(graph: VulkanGraph) -> Occurrences:
    """`et_vk.linear_qcs4w` of several batches, or of channels that do not fill its texels."""
    for place, operator, x in tensors_of(graph, ("et_vk.linear_qcs4w",)):
        inputs, outputs = x.shape[-1], graph.tensor(operator.out).shape[-1]
        batches = len(x.shape) > 2 and x.shape[0] > 1
        if batches or inputs % _INPUTS_OF_A_TEXEL or outputs % _OUTPUTS_TOGETHER:
            yield Occurrence(f"{place}: {list(x.shape)} to {outputs} channels")


def choices_in_textures(graph: VulkanGraph) -> Occurrences:
    """`aten.index` of tensors of two dimensions or more in textures."""
    return [
        Occurrence(f"{place}: of {list(x.shape)}")
        for place, _, x in tensors_of(graph, ("aten.index",))
        if x.storage == "texture3d" and len(x.shape) > 1
    ]


def uneven_upsampling(graph: VulkanGraph) -> Occurrences:
    """Images to sizes that are not multiples of theirs, nor a part: to the nearest place, or by
    scale factors that do not give the size exactly."""
    for place, operator, x in tensors_of(graph, (_NEAREST, "aten.upsample_bilinear2d")):
        # Scale factors are an upsampling's last argument, before its result.
        out, scales = (
            graph.tensor(operator.out),
            fixed_value(graph, operator, len(operator.args) - 2),
        )
        sizes = list(zip(x.shape[-2:], out.shape[-2:], strict=False))
        uneven = operator.kind == _NEAREST and any(a % b and b % a for a, b in sizes if a and b)
        inexact = isinstance(scales, list | tuple) and any(
            a * scale != b for (a, b), scale in zip(sizes, scales, strict=False)
        )
        if uneven or inexact:
            yield Occurrence(f"{place}: {list(x.shape)} to {list(out.shape)}")


def added_columns(graph: VulkanGraph) -> Occurrences:
    """`aten.addmm` in buffers that adds one number to each row."""
    for place, operator, bias in tensors_of(graph, ("aten.addmm",)):
        out = graph.tensor(operator.out)
        unused = fixed_value(graph, operator, 3) == 0
        one_wide = not unused and len(bias.shape) == 2 and bias.shape[0] > 1 and bias.shape[1] == 1
        if one_wide and out.storage == "buffer" and out.shape[-1] > 1:
            yield Occurrence(f"{place}: {list(bias.shape)} to {list(out.shape)}")


def rounded_divisions(graph: VulkanGraph) -> Occurrences:
    """Divisions rounded towards zero in floating point, or down in integers."""
    for place, operator, x in tensors_of(graph, ("aten.div",)):
        mode = fixed_value(graph, operator, 2)
        if mode == ("trunc" if x.dtype.startswith("float") else "floor"):
            yield Occurrence(f"{place}: rounding_mode {mode} of {x.dtype}{list(x.shape)}")


def powers(graph: VulkanGraph) -> Occurrences:
    """Powers by tensors, and of integers."""
    for place, operator, x in tensors_of(graph, ("aten.pow",)):
        number = fixed_value(graph, operator, 1)
        integers = not x.dtype.startswith("float") and number is not None and number > 1
        if number is None or integers:
            yield Occurrence(f"{place}: of {x.dtype}{list(x.shape)}")


def integers_made(graph: VulkanGraph) -> Occurrences:
    """`aten.scalar_tensor` that gives integers."""
    made = [
        (place, graph.tensor(operator.out))
        for place, operator in operators(graph, "aten.scalar_tensor")
    ]
    return [
        Occurrence(f"{place}: {out.dtype}")
        for place, out in made
        if not out.dtype.startswith("float")
    ]


def repeated_batches(graph: VulkanGraph) -> Occurrences:
    """`aten.repeat_interleave` of batches, or of the dimension that textures are packed along."""
    for place, operator, x in tensors_of(graph, ("aten.repeat_interleave",)):
        dim = fixed_value(graph, operator, 2) or 0
        from_the_end = -dim if dim < 0 else len(x.shape) - dim
        if from_the_end in (4, PACKED_FROM_THE_END.get(x.layout)):
            yield Occurrence(f"{place}: {list(x.shape)} along -{from_the_end}, {x.layout}")


def dim_orders_in_textures(graph: VulkanGraph) -> Occurrences:
    """`dim_order_ops._to_dim_order_copy` from or to a texture, or of numbers to bool."""
    for place, operator, x in tensors_of(graph, ("dim_order_ops._to_dim_order_copy",)):
        out = graph.tensor(operator.out)
        to_bool = out.dtype in ("bool", "uint8") and x.dtype != out.dtype
        if "texture3d" in (x.storage, out.storage) or to_bool:
            text = f"{x.dtype} in a {x.storage} to {out.dtype} in a {out.storage}"
            yield Occurrence(f"{place}: {text}")
