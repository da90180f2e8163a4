"""Models with several residual streams (Gemma 3n), which no backend has been held against yet."""

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.errors import InputError


def refuse_streams(opened: Checkpoint) -> None:
    """Raise `InputError` where `opened` has more than one residual stream."""
    streams = opened.config.altup_num_inputs
    if streams > 1:
        raise InputError(
            f"{opened.source}: has {streams} residual streams (altup_num_inputs {streams}), as "
            "Gemma 3n has, and no program of such a model has been held against it yet, so none "
            "is written. quatrain evaluate runs the checkpoint; for a phone take Gemma 3 or 4."
        )
