"""The sizes of what operators give, from the sizes of what they take.

Sources: the operators' schemas, and what ExecuTorch's Vulkan runtime resizes their results to
(`backends/vulkan/runtime/graph/ops/impl`).
"""

from collections.abc import Callable, Iterator
from itertools import zip_longest

from quatrain.errors import UNFIT, InputError
from quatrain.program.vulkan.elementwise import ELEMENTWISE, OF_TWO_TENSORS
from quatrain.program.vulkan.graph import VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.program.vulkan.sizes import moved_sizes as moved
from quatrain.program.vulkan.sizes.call_numbers import call_numbers
from quatrain.program.vulkan.sizes.sized_arguments import SizedArguments, Sizes, Unfit


def result_sizes(graph: VulkanGraph) -> Iterator[tuple[int, list[Sizes] | Unfit]]:
    """The place of each operator and the sizes of its results in the longest call, or why it has
    none, if that is known: not of one whose arguments are of other kinds than its own."""
    numbers = call_numbers(graph)
    for index, operator in enumerate(graph.operators):
        if rule := _RULES.get(operator.kind):
            try:
                yield index, rule(SizedArguments(graph, operator, numbers))
            except Unfit as why:
                yield index, why
            except (InputError, *UNFIT):
                continue


_Rule = Callable[[SizedArguments], list[Sizes]]


def _same_sizes_as(*names: str) -> _Rule:
    """A result of the sizes of each of these arguments."""
    return lambda args: [list(args.sizes(name)) for name in names]


def _with_a_number(args: SizedArguments) -> list[Sizes]:
    """Where two tensors do not fit their result is for the doctor to say, `sizes-differ`."""
    args.fixed("b")
    return [list(args.sizes("a"))]


def _of_condition(args: SizedArguments) -> list[Sizes]:
    """From the last on; None if two are said to be of several sizes, as bounds of one length may
    be."""
    shapes = [args.sizes(name)[::-1] for name in ("condition", "a", "b")]
    places = [{*sizes} - {1} or {1} for sizes in zip_longest(*shapes, fillvalue=1)]
    return [[min(sizes) if len(sizes) == 1 else None for sizes in places[::-1]]]


def _product(a: str, b: str) -> _Rule:
    return lambda args: [[*args.sizes(a)[:-1], args.sizes(b)[-1]]]


def _linear(args: SizedArguments) -> list[Sizes]:
    return [[*args.sizes()[:-1], args.sizes("weights")[0]]]


def _looked_up(args: SizedArguments) -> list[Sizes]:
    """Two numbers of an int4 table lie in each byte."""
    in_each = 1 if args.operator.kind == "aten.embedding" else 2
    return [[*args.sizes("indices"), args.sizes("weights")[-1] * in_each]]


def _row_scales(args: SizedArguments) -> list[Sizes]:
    rows: Sizes = [*args.sizes()[:-1], *([1] if args.fixed("keepdim") else [])]
    return [rows, rows]


def _softmax(args: SizedArguments) -> list[Sizes]:
    x = args.sizes()
    args.dim(len(x))
    return [list(x)]


def _gathered(args: SizedArguments) -> list[Sizes]:
    x, index = args.sizes(), args.sizes("index")
    args.dim(len(x))
    if len(x) != len(index):
        raise Unfit(f"takes places {index} of {x}")
    return [list(index)]


def _reduced(args: SizedArguments) -> list[Sizes]:
    x = args.sizes()
    dims, kept = args.dims(len(x)), args.fixed("keepdim")
    return [[1 if dim in dims else size for dim, size in enumerate(x) if kept or dim not in dims]]


def _normed(args: SizedArguments) -> list[Sizes]:
    """With the mean and the deviation of each row."""
    x, over = args.sizes(), len(args.integers("normalized_shape"))
    rows: Sizes = [*x[:-over], *(1 for _ in range(over))]
    return [list(x), rows, rows]


def _convolved(args: SizedArguments) -> list[Sizes]:
    batches, _, *places = args.sizes()
    channels, of_group, *kernel = args.sizes("weights")
    names = ("stride", "padding", "dilation", "output_padding")
    numbers = [[*args.fixed(name) * len(places)][: len(places)] for name in names]
    made: Sizes = []
    for size, taps, step, pad, apart, more in zip(places, kernel, *numbers, strict=True):
        reach = apart * (taps - 1) + 1
        if args.fixed("transposed"):
            made.append((size - 1) * step - 2 * pad + reach + more)
        else:
            made.append((size + 2 * pad - reach) // step + 1)
    given = of_group * args.fixed("groups") if args.fixed("transposed") else channels
    return [[batches, given, *made]]


_RULES: dict[str, _Rule] = {
    kind: rule
    for rule, kinds in (
        (
            _same_sizes_as("x"),
            (
                *ELEMENTWISE, "et_vk.rms_norm", "et_vk.apply_rotary_emb_interleaved",
                "aten.flip", "aten.full_like", "aten.ones_like", "aten.zeros_like",
                "torchao.quantize_affine",
                "torchao.dequantize_affine", "quantized_decomposed.quantize_per_tensor",
                "quantized_decomposed.dequantize_per_tensor", "et_vk.q8ta_relu",
                "dim_order_ops._to_dim_order_copy", "dim_order_ops._clone_dim_order",
            ),
        ),
        (_with_a_number, (*OF_TWO_TENSORS, "aten.ne")),  # this one has a number alone
        (_of_condition, ("aten.where",)),
        (_same_sizes_as("q"), ("sdpa_with_kv_cache", "custom_sdpa")),
        (_product("q", "v"), ("et_vk.sdpa",)),
        (_same_sizes_as("xq", "xk"), ("et_vk.apply_rotary_emb", "et_vk.apply_rotary_emb_hf")),
        (
            _linear,
            (
                *INT4_LINEARS, "aten.linear", "et_vk.linear_qcs4w", "et_vk.linear_qcs8w",
                "aten._weight_int8pack_mm", "et_vk.linear_q8ta_q8csw", "et_vk.q8ta_linear",
                "et_vk.q8ta_linear_gemv",
            ),
        ),
        (_product("a", "b"), ("aten.mm", "aten.bmm", "aten.addmm")),
        (_looked_up, ("aten.embedding", "et_vk.embedding_q4gsw")),
        (_row_scales, ("torchao.choose_qparams_affine",)),
        (
            _reduced,
            ("aten.mean", "aten.sum", "aten.amax", "aten.amin", "aten.argmax", "aten.argmin"),
        ),
        (_normed, ("aten.native_layer_norm",)),
        (_convolved, ("aten.convolution", "et_vk.conv_with_clamp")),
        (lambda args: [args.integers("size")], ("aten.full", "aten.ones", "aten.zeros")),
        (lambda args: [[]], ("aten.scalar_tensor",)),
        (_softmax, ("aten._softmax", "aten._log_softmax")),
        (_gathered, ("aten.gather",)),
        (moved.joined, ("aten.cat",)),
        (moved.split, ("aten.split_with_sizes_copy", "aten.split_copy")),
        (moved.sliced, ("aten.slice_copy",)),
        (moved.selected, ("aten.select_copy",)),
        (moved.chosen, ("aten.index_select",)),
        (moved.permuted, ("aten.permute_copy", "aten.permute")),
        (moved.transposed, ("aten.transpose_copy", "aten.t_copy")),
        (moved.unsqueezed, ("aten.unsqueeze_copy",)),
        (moved.squeezed, ("aten.squeeze_copy",)),
        (moved.expanded, ("aten.expand_copy",)),
        (moved.repeated, ("aten.repeat",)),
        (moved.viewed, ("aten.view_copy",)),
        (moved.unfolded, ("aten.unfold_copy",)),
        (moved.padded, ("aten.constant_pad_nd",)),
        (moved.shuffled, ("aten.pixel_shuffle", "et_vk.q8ta_pixel_shuffle")),
    )
    for kind in kinds
}  # fmt: skip
