"""What ExecuTorch's Vulkan runtime computes wrongly or does not load, refused before the work."""

from quatrain.backbone.config import BackboneConfig
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program.linear_kernels import WRONG_GROUP_SUMS, group_sums_are_right


def check_limits(opened: Checkpoint, scheme: Scheme) -> None:
    """Raise `InputError` where the Vulkan runtime would not compute `opened` in `scheme`."""
    if scheme == Scheme.DYNAMIC_INT8 and not group_sums_are_right(opened.group_size):
        raise InputError(
            f"{opened.source}: the group size is {opened.group_size}, and {WRONG_GROUP_SUMS}. "
            "Export with --weight-only-linear, or make the checkpoint again with quatrain "
            "quantize or convert --group-size 128."
        )
    problem = _rotary_problem(opened.config)
    if problem:
        raise InputError(f"{opened.source}: {problem}. Use --backend xnnpack.")


def _rotary_problem(config: BackboneConfig) -> str | None:
    """Sources: `apply_rotary_emb_hf`, which checks for it, and `rotary_embedding.glsl`, whose
    threads write eight channels or nothing, of ExecuTorch 1.0 to 1.5."""
    if all(config.layer(index).rope == "none" for index in range(config.n_layers)):
        return None
    if config.use_hf_rope:
        rotated = int(config.head_dim * config.partial_rotary_factor)
        if rotated % 8:
            return (
                f"{rotated} channels of each head are rotated (head_dim {config.head_dim}, "
                f"partial_rotary_factor {config.partial_rotary_factor:g}), and a phone does not "
                "load a program with a rotary width that is not a multiple of 8"
            )
    elif config.head_dim % 8:
        return (
            f"head_dim is {config.head_dim}, and a phone rotates heads in Meta's layout "
            "(use_hf_rope false) wrongly unless head_dim is a multiple of 8"
        )
    return None
