"""The method, made for one model, if it is one that looks at activations."""

from math import prod

from quatrain.checkpoint.float_model import FloatModel
from quatrain.errors import InputError
from quatrain.quantize.calibration import Calibration, writes
from quatrain.quantize.distill.arithmetic import training_arithmetic
from quatrain.quantize.distill.memory import fitted_to_memory
from quatrain.quantize.distill.method import MOST_TRAINED, Distill
from quatrain.quantize.distill.recipe import recipe_on
from quatrain.quantize.methods.gptq import Gptq
from quatrain.quantize.opened_source import OpenedSource
from quatrain.quantize.tensor_formats import Rounding
from quatrain.quantize.threads import torch_threads
from quatrain.stages import Stages, installed_memory_bytes

# Those that look at activations: made for one model, and then a `Method`.
CALIBRATED: tuple[Rounding, ...] = ("gptq", "distill")


def usual_method(calibration: Calibration | None, opened: OpenedSource) -> Rounding:
    """What is best where no method is asked for: "gptq", but where no text can be had."""
    model = opened.source
    assert isinstance(model, FloatModel)
    if calibration is None and Calibration.usual(model, opened.tokenizer) is None:
        return "rtn"
    return "gptq"


def calibrated_method(
    method: Rounding, calibration: Calibration | None, opened: OpenedSource, stages: Stages
) -> Gptq | Distill | None:
    """The method for the opened model; None if it needs no calibration.

    Raises `InputError` if the calibration text cannot be used.
    """
    if method in CALIBRATED:
        model = opened.source
        assert isinstance(model, FloatModel)
        if not model.config.apply_embedding:
            raise InputError(
                f"{model.source}: its input is embeddings, not tokens (apply_embedding is false), "
                "so it cannot read a calibration text; use --method rtn"
            )
        if calibration is None:
            calibration = Calibration.usual(model, opened.tokenizer) or Calibration()
        with torch_threads(1):  # or another number of them would write another text
            most = MOST_TRAINED if method == "distill" else None
            tokens = calibration.tokens(model, opened.tokenizer, stages, most)
        whose = " that the model generated itself" if calibration.self_generated else ""
        made = opened.plan, tokens, calibration.scheme, stages, whose
        if method == "distill":
            device, (texts, length) = training_arithmetic().device, tokens.shape
            recipe = recipe_on(device, writes(model.config))
            recipe = fitted_to_memory(recipe, model, texts, length, device)
            return Distill(*made, recipe)
        _require_memory(model, tokens.numel())
        return Gptq(*made)
    return None


def _require_memory(model: FloatModel, tokens: int) -> None:
    """Refuse, before the work, what this machine's memory cannot hold: about what is needed."""
    config = model.config
    widest = max(config.dim, config.hidden_dim, config.expert_dim)
    layer = max(
        sum(
            prod(tensor.shape)
            for name, tensor in model.tensors.stored.items()
            if name.startswith(f"layers.{index}.")
        )
        for index in range(config.n_layers)
    )
    table = config.vocab_size * config.dim
    # Both models' activations; a layer's weights, read and rounded; second moments and inverses.
    floats = 2 * tokens * (4 * config.dim + 4 * widest) + 2 * max(layer, table) + 6 * widest**2
    there = installed_memory_bytes()
    needed = 4 * floats
    if needed > there:
        raise InputError(
            f"{model.source}: --method gptq needs about {needed / 1e9:.0f} GB of memory for its "
            f"layers and {tokens} tokens, and this machine has {there / 1e9:.0f}; use --method rtn"
        )
