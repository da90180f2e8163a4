"""The method, made for one model, where it is one that looks at activations."""

from quatrain.checkpoint.float_model import FloatModel
from quatrain.errors import InputError
from quatrain.quantize.calibration import Calibration
from quatrain.quantize.methods import CALIBRATED
from quatrain.quantize.methods.gptq import Gptq
from quatrain.quantize.opened_source import OpenedSource
from quatrain.quantize.tensor_formats import Rounding
from quatrain.quantize.writer import one_thread
from quatrain.stages import Stages


def calibrated_method(
    method: Rounding, calibration: Calibration | None, opened: OpenedSource, stages: Stages
) -> Gptq | None:
    """The method for a model that was opened; None where it looks at weights alone.

    Raises `InputError` where the calibration text cannot be used, or the method has no use for one.
    """
    if method in CALIBRATED:
        model = opened.source
        assert isinstance(model, FloatModel)
        if not model.config.apply_embedding:
            raise InputError(
                f"{model.source}: takes embeddings in place of tokens (apply_embedding is false), "
                "so no text can be read with it; use --method rtn"
            )
        calibration = calibration or Calibration()
        with one_thread():  # or another number of them would write another text
            tokens = calibration.tokens(model, stages)
        return CALIBRATED[method](opened.plan, tokens, calibration.scheme, stages)
    if calibration is not None:
        raise InputError(
            f"--method {method} looks at weights alone; leave out --calibration, --self-generated "
            "and --for, or choose --method gptq"
        )
    return None
