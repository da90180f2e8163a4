"""Reads AutoRound linears (Cheng et al., 2023), which it packs as GPTQ or as AWQ does; those of
data_type `mx_int` are `mx_int`'s.

`packing_format` (formerly `backend`) of its quantization_config says how: "auto_round:auto_gptq" as
GPTQ with zero - 1 stored, "auto_round" and "auto_round:gptqmodel" as GPTQ with the zero itself,
"auto_round:auto_awq" as AWQ. Its first releases put the kernel behind that, or in its place
("autoround:exllamav2" as GPTQ with the zero itself). (AutoRound's `inference/backend.py`.)
"""

from quatrain.checkpoint.quantizers.awq import AWQ
from quatrain.checkpoint.quantizers.gptq import GPTQ
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.mx_int import DATA_TYPE, MX_INT
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.checkpoint.quantizers.rotated import refuse_rotated
from quatrain.errors import InputError

_KERNELS = {"exllamav2", "exllamav1", "triton", "tritonv2", "cuda", "marlin", "gemm"}
_BY_DEFAULT = "auto_round:auto_gptq"
# By what follows "auto_round:".
_PACKINGS: dict[str, tuple[Quantizer, str]] = {
    "auto_gptq": (GPTQ, "gptq"),
    "gptq": (GPTQ, "gptq"),
    "": (GPTQ, "gptq_v2"),
    "gptqmodel": (GPTQ, "gptq_v2"),
    "auto_awq": (AWQ, "gemm"),
    "awq": (AWQ, "gemm"),
}


def data_types(settings: Settings) -> list[str]:
    """The data types that `settings` state, for all linears or, in extra_config, for single ones
    that are quantized."""
    extra = settings.get("extra_config")
    layers = (
        [own for own in extra.values() if isinstance(own, dict)] if isinstance(extra, dict) else []
    )
    bits_of = (own.get("bits", settings.get("bits")) for own in layers)
    quantized = [own for own, bits in zip(layers, bits_of, strict=True) if bits not in (16, 32)]
    of_layers = [own["data_type"] for own in quantized if own.get("data_type")]
    return [str(one) for one in (settings.get("data_type") or "int", *of_layers)]


def _check(settings: Settings, source: str) -> None:
    stated = sorted(set(data_types(settings)))
    if stated != ["int"]:
        raise InputError(
            f"{source}: its quantization_config has data_type "
            f"{' and '.join(repr(one[:80]) for one in stated)}, expected one for all linears, "
            "'int', 'mx_int', 'fp', 'mx_fp' or 'nv_fp'; quantize the original model"
        )
    packer, as_theirs = _packing(settings, source)
    bits, dynamic = settings.get("act_bits") or 16, settings.get("act_dynamic", True)
    if not isinstance(bits, int) or (bits < 16 and not (bits == 8 and dynamic is True)):
        raise InputError(
            f"{source}: it quantizes activations (act_bits {bits!r}, act_dynamic {dynamic!r}), "
            "expected no quantization of activations, or dynamic quantization to 8 bits; quantize "
            "the model without act_bits"
        )
    activations = settings.get("act_data_type") or "int"
    if bits == 8 and not str(activations).startswith("int"):
        raise InputError(
            f"{source}: it quantizes activations to act_data_type {activations!r}, expected 'int', "
            "as 8da4w does; quantize the model without act_bits"
        )
    refuse_rotated(settings, source)
    packer.check(as_theirs, source)


def _other(settings: Settings) -> Quantizer | None:
    return MX_INT if set(data_types(settings)) == {DATA_TYPE} else None


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    packer, as_theirs = _packing(settings, parts.source)
    return packer.read(parts, as_theirs)


def _packing(settings: Settings, source: str) -> tuple[Quantizer, Settings]:
    """(who reads it, the settings as that expects them)."""
    named = (settings.get(name) for name in ("packing_format", "backend"))
    stated = str(next((name for name in named if name not in (None, "auto")), _BY_DEFAULT))
    whose, *words = stated.replace("autoround", "auto_round").split(":")
    words = [word for word in words if word not in _KERNELS]
    known = _PACKINGS.get(":".join(words)) if whose == "auto_round" else None
    if known is None:
        expected = ", ".join(f"auto_round:{name}" for name in _PACKINGS if name)
        raise InputError(
            f"{source}: AutoRound packed it as {stated[:100]!r}, expected auto_round, {expected}; "
            "export it with --format auto_gptq"
        )
    packer, form = known
    own = {name: settings.get(name) for name in ("bits", "sym")}
    return packer, own | {"checkpoint_format": form, "version": "gemm"}


AUTO_ROUND = Quantizer(
    name="auto-round",
    other_names=("intel/auto-round", "inc"),
    required=GPTQ.required,
    optional=GPTQ.optional,
    check=_check,
    read=_read,
    other=_other,
)
