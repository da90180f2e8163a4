"""Notes on a program that stores something differently from its checkpoint."""

from pathlib import Path

from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.model import Backbone
from quatrain.export.metadata import longest_call
from quatrain.export.options import ExportOptions
from quatrain.export.xnnpack.gated_delta_rule import FusedDeltaRule
from quatrain.export.xnnpack.positive_scales import RoundedAgain
from quatrain.export.xnnpack.ring_cache import RingPlaces
from quatrain.int4 import Scheme
from quatrain.linear import Int4Linear, QuantizedGroupEmbedding
from quatrain.targets.catalogue import load_defects
from quatrain.targets.cpu import GATED_DELTA_RULE, SINCE
from quatrain.targets.triggers.limits import SURE_IMAGE
from quatrain.tokenizer.files import TOKENIZER, beside

_FLOAT_ZERO_POINTS = "dq8ca-zp-binding-float"


def notes_on(backbone: Backbone, options: ExportOptions, rounded: RoundedAgain) -> list[str]:
    """Whole sentences on the program of `backbone`, whose parts are operators already."""
    notes = []
    if options.backend == "vulkan":
        notes.append(_all_experts(backbone.config))
        notes.append(_kept_windows(backbone.config))
        notes.append(_zero_points(options))
        notes.append(_half_attention(backbone.config, options))
    notes.append(_kept_state(backbone))
    notes.append(_longrope_factors(backbone.config))
    if options.backend == "vulkan":
        notes.append(_floating_point_embedding(backbone.tok_embeddings))
    if rounded.rounded:
        notes.append(f"{rounded}.")
    if options.backend == "xnnpack":
        notes.append(_rings(backbone))
        notes.append(_bfloat16_scales(backbone))
    notes.append(_shorter_calls(backbone, options))
    return [note for note in notes if note]


def notes_on_tokenizer(output: Path, brought: list[Path]) -> list[str]:
    """A note if the checkpoint has no tokenizer and an earlier one lies beside the program."""
    earlier = beside(output, TOKENIZER)
    if brought or not earlier.is_file():
        return []
    return [
        f"The checkpoint has no tokenizer, so the program will be run with {earlier.name}, which "
        "was already beside it. Delete that file if it belongs to another model."
    ]


def _zero_points(options: ExportOptions) -> str:
    """A note on the doctor's defect of floating-point zero points, as in half precision; with a
    target the doctor checks it."""
    is_half = options.activation_dtype == "fp16"
    if options.target is not None or options.scheme != Scheme.DYNAMIC_INT8 or not is_half:
        return ""
    defect = next(each for each in load_defects() if each.id == _FLOAT_ZERO_POINTS)
    return (
        f"On a Mali ({', '.join(defect.families)}) with ExecuTorch before {defect.fixed_in} this "
        f"8da4w program generates garbage ({defect.id}): for such a phone export with --target, "
        "in fp32, or with --weight-only-linear."
    )


def _half_attention(config: BackboneConfig, options: ExportOptions) -> str:
    """A note on caches too long for a texture, for which the doctor reports a possible defect."""
    windows = [config.layer(index).attention_window for index in range(config.n_layers)]
    plain = not config.changes_scores and None in windows
    if options.activation_dtype != "fp16" or config.max_seq_len <= SURE_IMAGE or not plain:
        return ""
    return (
        f"In contexts beyond {SURE_IMAGE} tokens, a phone computes the attention of prompts in "
        "float16, less and less exactly further into the context (sdpa-half-sums): "
        f"--activation-dtype fp32 (only of `quatrain export`) or --max-seq-len {SURE_IMAGE} "
        "(max-seq-len in a release.toml) makes it float32."
    )


def _all_experts(config: BackboneConfig) -> str:
    experts, picked = config.num_experts, config.num_activated_experts
    if experts <= picked:
        return ""
    return (
        f"All {experts} experts of a layer are computed for every token, {experts / picked:g} "
        f"times the work of the {picked} that its router picks: a delegate cannot branch."
    )


def _kept_windows(config: BackboneConfig) -> str:
    windows = [config.layer(index).attention_window for index in range(config.n_layers)]
    sizes = sorted({window[1] for window in windows if window is not None})
    if not sizes:
        return ""
    return (
        "Layers with a window or a chunk keep the keys of the last "
        f"{' and '.join(map(str, sizes))} tokens: each call must continue the previous one, or "
        "begin a text at position 0."
    )


def _rings(backbone: Backbone) -> str:
    rings = {part.window: part for part in backbone.modules() if isinstance(part, RingPlaces)}
    if not rings:
        return ""
    kept = " and ".join(str(rings[window].size) for window in sorted(rings))
    sinks = f" and the first {each.sinks}" if (each := rings[min(rings)]).sinks else ""
    return (
        f"Layers with a window keep the keys of the last {kept} tokens{sinks}: each call must "
        "continue the previous one, or begin a text at position 0."
    )


def _kept_state(backbone: Backbone) -> str:
    if backbone.rewinds:
        return ""
    config = backbone.config
    kept = f"Short convolutions keep the inputs of the last {config.conv_L_cache - 1} tokens"
    layers = [config.layer(index) for index in range(config.n_layers)]
    if any(layer.recurs for layer in layers):
        what = "State spaces" if any(layer.mamba for layer in layers) else "Gated delta rules"
        kept = f"{what} keep only the last state"
    needs = ""
    if any(isinstance(part, FusedDeltaRule) for part in backbone.modules()):
        needs = f" Runtimes before {SINCE[GATED_DELTA_RULE]} cannot load it."
    return (
        f"{kept}: each call must continue the previous one, or begin a text at position 0.{needs}"
    )


def _shorter_calls(backbone: Backbone, options: ExportOptions) -> str:
    """Source: `TextLLMRunner::generate` of ExecuTorch 1.3 and 1.4, which treats such programs as
    having an endless sliding window."""
    context, longest = backbone.config.max_seq_len, longest_call(backbone, options.backend)
    if longest == context:
        return ""
    return (
        f"A call takes up to {longest} tokens: ExecuTorch's runner splits a longer prompt into "
        "several calls. Since 1.3 it does not stop at the end of the context of such a program: "
        f"reset it before prompts and answers have {context} tokens together."
    )


def _longrope_factors(config: BackboneConfig) -> str:
    if config.rope_scaling_short_factor == config.rope_scaling_long_factor:  # or there are none
        return ""
    return (
        f"LongRoPE's {config.longrope} factors: the context of {config.max_seq_len} tokens is "
        f"{'longer' if config.longrope == 'long' else 'no longer'} than that of "
        f"pretraining, {config.original_max_position_embeddings}."
    )


def _floating_point_embedding(embedding: nn.Module | None) -> str:
    if not isinstance(embedding, QuantizedGroupEmbedding) or embedding.bit_width != 8:
        return ""
    return (
        "The int8 embedding is stored in floating point: ExecuTorch's Vulkan delegate has "
        "kernels only for int4 and floating-point embeddings. Quantized to int4 (--embedding "
        'int4, embedding = "int4" in a release.toml) it takes four bits a weight, and its '
        "scales."
    )


def _bfloat16_scales(backbone: nn.Module) -> str:
    worst = max((_bfloat16_error(part) for part in backbone.modules()), default=0.0)
    if not worst:
        return ""
    return (
        "XNNPACK's int4 kernels store scales in bfloat16, which changes this checkpoint's scales "
        f"by up to {worst:.2%}. Scales that are already bfloat16 values, as quatrain quantize "
        "writes them, do not change."
    )


def _bfloat16_error(part: nn.Module) -> float:
    """The largest relative change of a linear's scales in bfloat16."""
    if not isinstance(part, Int4Linear):
        return 0.0
    rounded = part.scales.bfloat16().float()
    return float(((rounded - part.scales) / part.scales).abs().max())
