"""Quatrain exports int4 language models to on-device programs and proves them right.

The names in `__all__` are the library. Each is imported from its module when it is first used, so
that `import quatrain` takes no time and a program can be read without torch.
"""

from quatrain.lazy_names import lazy_names

TYPE_CHECKING = False  # type checkers take it for True; typing's takes time to import
if TYPE_CHECKING:
    from quatrain.checkpoint.checkpoint import Checkpoint
    from quatrain.checkpoint.float_model import FloatModel
    from quatrain.checkpoint.open import open_checkpoint, open_float_model
    from quatrain.errors import InputError, QuatrainError
    from quatrain.export import ExportOptions, ExportReport, export_checkpoint
    from quatrain.export.plan.plan import ProgramsPlan, plan_programs
    from quatrain.int4 import Scheme
    from quatrain.program import Program, open_program, write_program
    from quatrain.quantize.calibration import Calibration
    from quatrain.quantize.convert_options import ConvertOptions
    from quatrain.quantize.pipeline import convert_model, quantize_model
    from quatrain.quantize.report import QuantizeReport
    from quatrain.release.release import Release, make_release
    from quatrain.release.spec import ReleaseSpec
    from quatrain.runtime.generation.conversation import Conversation, Turn
    from quatrain.runtime.generation.generate import Generation, generate
    from quatrain.runtime.generation.sampling import Sampling
    from quatrain.runtime.generation.text_generation import TextGeneration, generate_text
    from quatrain.runtime.load import ProgramRunner, load_runner
    from quatrain.runtime.runner import Runner
    from quatrain.tokenizer import Tokenizer, find_tokenizer
    from quatrain.verify.evaluate.divergence import Divergence
    from quatrain.verify.evaluate.evaluate import evaluate_models
    from quatrain.verify.evaluate.evaluation import Evaluation
    from quatrain.verify.explain.explain import explain_output
    from quatrain.verify.explain.explanation import Explanation
    from quatrain.verify.explain.phone_output import PhoneOutput, read_phone_output
    from quatrain.verify.verify import VerifyReport, verify_program

__all__ = [
    "Calibration", "Checkpoint", "Conversation", "ConvertOptions", "Divergence", "Evaluation",
    "Explanation", "ExportOptions", "ExportReport", "FloatModel", "Generation", "InputError",
    "PhoneOutput", "Program", "ProgramRunner", "ProgramsPlan", "QuantizeReport", "QuatrainError",
    "Release", "ReleaseSpec", "Runner", "Sampling", "Scheme", "TextGeneration", "Tokenizer",
    "Turn", "VerifyReport", "convert_model", "evaluate_models", "explain_output",
    "export_checkpoint", "find_tokenizer",
    "generate", "generate_text", "load_runner", "make_release", "open_checkpoint",
    "open_float_model", "open_program", "plan_programs", "quantize_model", "read_phone_output",
    "verify_program", "write_program",
]  # fmt: skip

_NAMES_OF_MODULE = {
    "quatrain.checkpoint.checkpoint": ("Checkpoint",),
    "quatrain.checkpoint.float_model": ("FloatModel",),
    "quatrain.checkpoint.open": ("open_checkpoint", "open_float_model"),
    "quatrain.errors": ("InputError", "QuatrainError"),
    "quatrain.export": ("ExportOptions", "ExportReport", "export_checkpoint"),
    "quatrain.export.plan.plan": ("ProgramsPlan", "plan_programs"),
    "quatrain.int4": ("Scheme",),
    "quatrain.program": ("Program", "open_program", "write_program"),
    "quatrain.quantize.calibration": ("Calibration",),
    "quatrain.quantize.convert_options": ("ConvertOptions",),
    "quatrain.quantize.pipeline": ("convert_model", "quantize_model"),
    "quatrain.quantize.report": ("QuantizeReport",),
    "quatrain.release.release": ("Release", "make_release"),
    "quatrain.release.spec": ("ReleaseSpec",),
    "quatrain.runtime.generation.conversation": ("Conversation", "Turn"),
    "quatrain.runtime.generation.generate": ("Generation", "generate"),
    "quatrain.runtime.generation.sampling": ("Sampling",),
    "quatrain.runtime.generation.text_generation": ("TextGeneration", "generate_text"),
    "quatrain.runtime.load": ("ProgramRunner", "load_runner"),
    "quatrain.runtime.runner": ("Runner",),
    "quatrain.tokenizer": ("Tokenizer", "find_tokenizer"),
    "quatrain.verify.evaluate.divergence": ("Divergence",),
    "quatrain.verify.evaluate.evaluate": ("evaluate_models",),
    "quatrain.verify.evaluate.evaluation": ("Evaluation",),
    "quatrain.verify.explain.explain": ("explain_output",),
    "quatrain.verify.explain.explanation": ("Explanation",),
    "quatrain.verify.explain.phone_output": ("PhoneOutput", "read_phone_output"),
    "quatrain.verify.verify": ("VerifyReport", "verify_program"),
}  # fmt: skip


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # for a type checker it would make every name valid
    __getattr__ = lazy_names(__name__, _NAMES_OF_MODULE)
