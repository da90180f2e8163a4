"""Weights that were rotated before they were quantized (QuaRot, SpinQuant), as settings say so."""

from quatrain.checkpoint.quantizers.quantizer import Settings
from quatrain.errors import InputError

# GPTQModel's; AutoRound's, of several releases.
_FIELDS = ("rotation", "rotation_config", "spinquant_config", "hadamard_config")


def refuse_rotated(settings: Settings, source: str) -> None:
    """Raise `InputError` where what linears read has to be rotated as the model runs."""
    stated = next((name for name in _FIELDS if settings.get(name)), None)
    if stated is not None:
        raise InputError(
            f"{source}: its weights are rotated ({stated} {str(settings[stated])[:100]}), and what "
            "linears read with them as the model runs, which is not read; quantize the model that "
            "it was made from, without a rotation"
        )
