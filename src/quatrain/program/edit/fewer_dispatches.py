"""Removes dispatches from a graph without changing a bit of its results."""

from dataclasses import replace

from quatrain.program.edit.prefill_qparams import reduce_qparams
from quatrain.program.edit.redundant_copies import remove_redundant_copies
from quatrain.program.edit.shared_results import share_masks
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import VulkanGraph


def reduce_dispatches(graph: VulkanGraph) -> None:
    """Remove from `graph`, in place, what computes nothing new: copies of unchanged values, the
    last norm of tokens whose logits are not read, masks that are computed again, and quantization
    parameters that are chosen again or not read."""
    remove_redundant_copies(graph)
    share_masks(graph)
    _select_before_norms(graph)
    reduce_qparams(graph)


def _select_before_norms(graph: VulkanGraph) -> None:
    """If only one token's row of a norm is read, compute the norm of that row only.

    A norm treats each row by itself. The selected row uses the memory of the norm's result.
    """
    def_use = DefUse(graph)
    for place, select in enumerate(graph.operators):
        made = def_use.producer.get(select.args[0])
        if select.kind != "aten.select_copy" or made is None:
            continue
        norm = graph.operators[made]
        if norm.kind != "et_vk.rms_norm":  # a layer norm gives its mean and variance, too
            continue
        every = graph.tensor(norm.out)
        alone = def_use.consumers[norm.out] == [place] and norm.out not in graph.outputs
        along_rows = graph.tensor(select.out).shape[-1:] == every.shape[-1:]
        if alone and along_rows:
            graph.values[norm.out] = replace(every, shape=graph.tensor(select.out).shape)
            x, *rest = norm.args[:-1]
            graph.operators[made] = replace(select, args=(x, *select.args[1:-1], norm.out))
            graph.operators[place] = replace(norm, args=(norm.out, *rest, select.out))
