"""Makes a graph dispatch less on the phone, for the same bits."""

from dataclasses import replace

from quatrain.program.def_use import DefUse
from quatrain.program.edit.idle_copies import remove_idle_copies
from quatrain.program.edit.qparams_of_prompts import choose_sparingly
from quatrain.program.edit.shared_masks import share_masks
from quatrain.program.graph import VulkanGraph


def make_lean(graph: VulkanGraph) -> None:
    """Leave out of `graph`, in place, what gives nothing new: copies of values as they are, the
    last norm of tokens whose logits nobody asks for, masks computed again, and parameters chosen
    again or for nobody."""
    remove_idle_copies(graph)
    share_masks(graph)
    _select_before_norms(graph)
    choose_sparingly(graph)


def _select_before_norms(graph: VulkanGraph) -> None:
    """Where one token's row of a norm is all that is read, norm that row alone.

    A norm treats each row by itself. Its result's memory serves the selected row.
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
