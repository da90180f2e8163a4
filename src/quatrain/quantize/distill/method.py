"""Distillation: what `gptq` makes, and then its scales and the model's norms trained end to end, so
that the quantized model predicts what the floating-point one does (Hinton et al., 2015).

On a GPU its integers too, on texts that the model writes. The file's layout, and what computes it,
are as without.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.safetensors import encoded_header
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.layout import EMBEDDING
from quatrain.checkpoint.open import open_checkpoint
from quatrain.int4 import Scheme
from quatrain.quantize import calibration
from quatrain.quantize.distill.arithmetic import fast_matmuls, training_arithmetic
from quatrain.quantize.distill.recipe import ON_PROCESSOR, Recipe
from quatrain.quantize.distill.saved_state import is_sealed, load, save, seal
from quatrain.quantize.distill.student import Student
from quatrain.quantize.distill.teacher import Teacher, hidden_states
from quatrain.quantize.distill.teacher_data import TeacherData, teacher_data
from quatrain.quantize.distill.training import Training
from quatrain.quantize.methods import METHODS, Method
from quatrain.quantize.methods.gptq import Gptq, rounding_error
from quatrain.quantize.methods.stored import keep_stored
from quatrain.quantize.opened_source import OpenedSource
from quatrain.quantize.output.resumable import held_alone, kept_folder, sha256_of
from quatrain.quantize.output.writer import write_checkpoint
from quatrain.quantize.plan.plan import MethodName, Plan, Source, TensorPlan
from quatrain.quantize.quantized_tensor import QuantizedTensor
from quatrain.stages import Stages, return_freed_memory

MOST_TRAINED = 65_536  # tokens of a text: their hidden states are in memory
_TRAINING, _READ, _ROUNDED, _KEY = "training.pt", "teacher.pt", "rounded", "key"


@dataclass
class Distill:
    """The method for one model; `training` comes before any tensor is asked for.

    Attributes:
        plan: Of the whole checkpoint, whose method is "distill" for what is rounded or trained.
        tokens: The calibration text as rows of the embedding, int64 [texts, T].
        scheme: For which the checkpoint is made; None is both.
        stages: Receives the progress of each stage.
        whose: Said of the tokens in the notes.
        recipe: How it is trained.
    """

    plan: Plan
    tokens: torch.Tensor
    scheme: Scheme | None = None
    stages: Stages = field(default_factory=Stages)
    whose: str = ""
    recipe: Recipe = ON_PROCESSOR

    def __post_init__(self) -> None:
        self._rounded: Checkpoint | None = None
        self._trained: dict[str, torch.Tensor] = {}
        self._notes: list[str] = []

    @contextmanager
    def training(self, opened: OpenedSource, output: Path) -> Iterator[None]:
        """Round and train, or go on with that; what is kept for it, in a folder beside `output`,
        goes when the block ends well.

        Raises `InputError` if the model overflows or the disk is full.
        """
        folder = working_folder(output)
        with held_alone(output, folder):
            with kept_folder(output, folder):
                self._begin(opened, folder)
                self._round(opened, folder / _ROUNDED)
                self._rounded = open_checkpoint(folder / _ROUNDED)
                return_freed_memory()
                self._train(opened, folder)
            yield
            shutil.rmtree(folder)

    def __call__(self, source: Source, tensor: TensorPlan) -> QuantizedTensor:
        """The trained tensor; if it was not trained, the rounded one."""
        if len(tensor.specs) == 1:
            if tensor.target in self._trained:
                return QuantizedTensor((self._trained[tensor.target],), None)
            return keep_stored(source, tensor)
        integers, scales = (self._quantized(spec.name) for spec in tensor.specs)
        error = rounding_error(source.tensors.rows_of(tensor.source), integers, scales)
        return QuantizedTensor((integers, scales), error)

    def _quantized(self, name: str) -> torch.Tensor:
        """The trained tensor; for a table of all tokens, the rows that a pruned vocabulary
        keeps."""
        assert self._rounded is not None
        config, whole = self._rounded.config, self._rounded.tensors[name]
        trained = self._trained.get(name, whole)
        if trained.shape == whole.shape:
            return trained
        of_input = name.startswith(f"{EMBEDDING}.")
        kept = config.input_prune_map if of_input else config.output_prune_map
        assert kept is not None
        made = whole.clone()
        made[list(kept.values())] = trained
        return made

    def notes(self) -> list[str]:
        """How it was rounded and trained, for people."""
        return self._notes

    def _begin(self, opened: OpenedSource, folder: Path) -> None:
        """Throw away what another request has left in `folder`."""
        said = json.dumps(
            [version("quatrain"), [sha256_of(file).hexdigest() for file in opened.files],
             self.scheme, self.plan.signed_scales, asdict(self.recipe)]
        )  # fmt: skip
        content = encoded_header(self.plan.specs) + said.encode() + self.tokens.numpy().tobytes()
        key = hashlib.sha256(content).hexdigest()
        kept = folder / _KEY
        if not kept.exists() or kept.read_bytes() != key.encode():
            kept.unlink(missing_ok=True)  # first: half of what it stands for is none of it
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            kept.write_text(key)

    def _round(self, opened: OpenedSource, folder: Path) -> None:
        """Write the checkpoint that is trained to `folder`, unless it is there."""
        if is_sealed(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        plan = Plan([_rounded(tensor) for tensor in self.plan.tensors], self.plan.quantization_args)
        count, length = self.tokens.shape
        kept = max(1, min(count, calibration.MOST_TOKENS // length))
        spread = torch.arange(kept) * count // kept
        gptq = Gptq(plan, self.tokens[spread], self.scheme, self.stages)
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        methods: dict[MethodName, Method] = {**METHODS, "gptq": gptq}
        write_checkpoint(replace(opened, plan=plan, errors={}), part, "", self.stages, methods)
        seal(part)
        part.rename(folder)

    def _train(self, opened: OpenedSource, folder: Path) -> None:
        """Train to the end, from where it was left."""
        assert self._rounded is not None and isinstance(opened.source, FloatModel)
        found, recipe = training_arithmetic(), self.recipe
        with fast_matmuls():
            read = self._read(opened.source, found.device, folder / _READ)
            teacher = Teacher(opened.source, read.hidden, found.device)
            length = read.texts.shape[1]
            backbone = build_backbone(
                self._rounded.config, self._rounded.tensors, Scheme.WEIGHT_ONLY,
                group_size=self._rounded.group_size, max_seq_len=length,
            )  # fmt: skip
            names = {tensor.target for tensor in self.plan.tensors if tensor.method == "distill"}
            floats = self._floats(opened.source) if recipe.integer_rate else None
            student = Student(backbone.to(found.device), names, found.dtype, floats)
            texts = read.texts.to(found.device)
            training = Training(student, teacher, texts, self.scheme, folder / _TRAINING, recipe)
            with self.stages("distill"):
                training.run(self.stages.advance)
        self._trained = student.tensors()
        written = read.texts.numel() - self.tokens.numel()
        itself = (
            f" and {written} that the model generated as continuations of it" if written else ""
        )
        self._notes = [
            f"It was calibrated on {self.tokens.numel()} tokens{self.whose}{itself}, and trained "
            f"on {recipe.steps * recipe.texts * length} of them, to a divergence of "
            f"{training.divergence:.3f} nats a token from the floating-point model."
        ]

    def _floats(self, model: FloatModel) -> Callable[[str], torch.Tensor]:
        """Returns a function that loads a weight by its name in the checkpoint."""
        sources = {tensor.target: tensor.source for tensor in self.plan.tensors}
        return lambda target: model.tensors[sources[target]]

    def _read(self, model: FloatModel, device: torch.device, file: Path) -> TeacherData:
        """The texts to train on, with the floating-point model's hidden states."""
        kept = load(file)
        if kept is not None:
            return TeacherData(**kept)
        if self.recipe.written:
            read = teacher_data(model, self.tokens, self.recipe.written, device, self.stages)
        else:
            with self.stages("read the text in floating point"):
                hidden = hidden_states(model, self.tokens, self.stages.advance)
            read = TeacherData(self.tokens, hidden)
        save(vars(read), file)
        return read


def working_folder(output: Path) -> Path:
    """The folder beside `output` in which an unfinished training waits; it may not exist."""
    output = Path(os.path.realpath(output))
    return output.parent / f".{output.name}.distilling"


def _rounded(tensor: TensorPlan) -> TensorPlan:
    """The method that the plan of the trained checkpoint has for it."""
    if tensor.method != "distill":
        return tensor
    return replace(tensor, method="gptq" if len(tensor.specs) == 2 else "stored")
