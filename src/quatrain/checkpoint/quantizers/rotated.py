"""Detects weights that were rotated before quantization (QuaRot, SpinQuant), transformed or made
sparse, from their settings."""

from quatrain.checkpoint.quantizers.quantizer import Settings
from quatrain.errors import InputError

# GPTQModel's; AutoRound's, of several releases.
_FIELDS = ("rotation", "rotation_config", "spinquant_config", "hadamard_config")


def refuse_rotated(settings: Settings, source: str) -> None:
    """Raise `InputError` if what linears read has to be rotated at run time."""
    stated = next((name for name in _FIELDS if settings.get(name)), None)
    if stated is not None:
        raise InputError(
            f"{source}: its weights are rotated ({stated} {str(settings[stated])[:100]}), and "
            "linears must rotate their inputs at run time, which is not supported; quantize the "
            "original model without a rotation"
        )


def refuse_transformed(settings: Settings, source: str) -> None:
    """Raise `InputError` if weights are stored sparse, or activations are transformed at run time.
    Transforms of weights are in the weights already."""
    sparsity = settings.get("sparsity_config") or {}
    if isinstance(sparsity, dict) and sparsity.get("format") not in (None, "dense"):
        raise InputError(
            f"{source}: its weights are stored as {sparsity['format']!r} (sparsity_config), "
            "expected 'dense'; quantize the original model"
        )
    stated = settings.get("transform_config")
    schemes = stated.get("config_groups") if isinstance(stated, dict) else None
    for name, scheme in schemes.items() if isinstance(schemes, dict) else ():
        applied = scheme.get("apply") if isinstance(scheme, dict) else None
        for one in applied if isinstance(applied, list) else ():
            location = one.get("location") if isinstance(one, dict) else None
            if not str(location).startswith("weight_"):
                raise InputError(
                    f"{source}: its transform {name!r} is applied to activations at run time "
                    f"(location {location!r}), which programs do not support; quantize without "
                    "transforms, or only with those of weights"
                )
