"""Rounds a weight by what it computes (GPTQ, Frantar et al., 2022), layer by layer.

Each linear is rounded column by column, and the error of each column is compensated in the
following ones (`second_order`), on the inputs that the already rounded layers before it give.
Before that, the weight is moved toward the outputs of the floating-point model (`paired_layer`). An
embedding that is also the output layer is rounded first, for the last hidden states of the
floating-point model, and serves as both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.backbone.model import OwnInputs
from quatrain.backbone.pruned_vocabulary import kept_rows
from quatrain.checkpoint.files.lazy_tensors import RowsOf
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.quantize.methods.linear_inputs import LinearInputs
from quatrain.quantize.methods.paired_layer import LEAST_TOKENS, PairedLayer, Rounded, dequantized
from quatrain.quantize.methods.products import compute_in_pieces
from quatrain.quantize.methods.round_to_nearest import quantize_rows, squared_error
from quatrain.quantize.methods.second_order import PASSES
from quatrain.quantize.plan.plan import Plan, Source, TensorPlan
from quatrain.quantize.quantized_tensor import QuantizedTensor, RoundingError
from quatrain.quantize.threads import torch_threads
from quatrain.stages import Stages, return_freed_memory

_ROWS_AT_ONCE = 8192  # of a table


@dataclass
class Gptq:
    """The method for one model, whose tensors are asked for in the order of `plan`.

    Attributes:
        plan: Of the whole checkpoint: says what else is rounded, and how.
        tokens: The calibration text as rows of the embedding, int64 [texts, T], each read from an
            empty context.
        scheme: For which the checkpoint is made; None is both: every second text calibrates for
            8da4w.
        stages: Receives the progress of each stage.
        whose: Said of the tokens in the notes.
    """

    plan: Plan
    tokens: torch.Tensor
    scheme: Scheme | None = None
    stages: Stages = field(default_factory=Stages)
    whose: str = ""

    def __post_init__(self) -> None:
        self._planned = {tensor.target: tensor for tensor in self.plan.tensors}
        self._table: Rounded | None = None  # of an embedding that is the output layer
        self._layers: LayerByLayer | None = None
        self._stream = torch.empty(0)  # [2 texts, T, dim], as the two models have it
        self._own: OwnInputs = None
        self._next = 0
        self._figure = ""  # which layers are done
        self._few: list[str] = []  # linears that received too few tokens
        self._rounded: dict[str, Rounded] = {}  # of the layers that are done, until it is asked for

    @torch.inference_mode()
    def __call__(self, source: Source, tensor: TensorPlan) -> QuantizedTensor:
        """Raises `InputError` if what the model computes is not finite."""
        if self._layers is None:
            self._layers = self._begin(source)
        self._layers.tensors = source.tensors
        if tensor.part == "layers":
            while self._next <= int(tensor.target.split(".")[1]):
                self._round_layer(self._layers, source)
            rounded = self._rounded.pop(tensor.target)
        else:
            rounded = self._table or self._round_output(self._layers, source, tensor)
        return QuantizedTensor(
            rounded, rounding_error(source.tensors.rows_of(tensor.source), *rounded)
        )

    def notes(self) -> list[str]:
        """How it was rounded, for people, once all tensors are there."""
        said = [f"It was calibrated on {self.tokens.numel()} tokens{self.whose}."]
        if self._few:
            said.append(
                f"{len(self._few)} linears of experts, the first of them {self._few[0]}, received "
                f"fewer than {LEAST_TOKENS} of them and are rounded to nearest."
            )
        return said

    def _begin(self, source: Source) -> LayerByLayer:
        """Round a tied table, and set the residual stream to what both models embed."""
        layers = LayerByLayer(source.config, source.tensors, hidden_output=True)
        embedding = self._planned["tok_embeddings.weight"]
        assert layers.ends.tok_embeddings is not None
        rows, places = self.tokens.unique(return_inverse=True)
        exact = layers.ends.tok_embeddings.weight[rows]
        if embedding.method == "gptq":
            share = self._share_of_hidden(embedding)
            with torch_threads(2):  # on every machine, for the same bytes
                hidden = layers.hidden(
                    self.tokens,
                    lambda part: self.stages.advance(share * part),
                    compute_in_pieces,
                )
            layers.ends.tok_embeddings = None  # frees its memory
            inputs = LinearInputs(hidden, hidden, self.plan.group_size)
            self._table = _round_table(
                source, embedding, inputs,
                lambda part: self.stages.advance(share + (1 - share) * part),
            )  # fmt: skip
        table = torch.cat([exact, self._seen_rows(source.config, embedding, exact, rows)])
        layers.ends.tok_embeddings = torch.nn.Embedding.from_pretrained(table)
        self._stream = layers.ends.embed(torch.cat([places, places + len(rows)]))
        self._own = layers.ends.own_inputs(torch.cat([self.tokens, self.tokens]), self._stream)
        layers.ends.tok_embeddings = None  # frees its memory
        return layers

    def _share_of_hidden(self, table: TensorPlan) -> float:
        """What part of the time for a tied table [V, K] the last hidden states take before it is
        rounded: by the multiplications of both."""
        layers = sum(prod(tensor.shape) for tensor in self.plan.tensors if tensor.part == "layers")
        rows, columns = table.shape
        hidden = self.tokens.numel() * layers
        return hidden / (hidden + rows * columns**2 * PASSES)

    def _seen_rows(
        self, config: BackboneConfig, embedding: TensorPlan, exact: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """The embedding's `rows`, `exact` [n, dim], as they are in the quantized model."""
        if self._table is not None:
            of = config.input_prune_map, config.vocab_size
            return dequantized(*(kept_rows(part, *of)[rows] for part in self._table))
        if embedding.method != "rtn":
            return exact  # kept as it is
        made = quantize_rows(
            exact.__getitem__, tuple(exact.shape), embedding.group_size, embedding.signed_scales
        )
        return dequantized(*made.tensors)

    def _round_layer(self, layers: LayerByLayer, source: Source) -> None:
        texts, length, _ = self._stream.shape
        block = layers.load(self._next, texts, length)
        methods = {
            target.removeprefix(f"layers.{self._next}.").removesuffix(".weight"): tensor.method
            for target, tensor in self._planned.items()
            if target.startswith(f"layers.{self._next}.") and len(tensor.shape) > 1
        }
        layer = PairedLayer(
            block, methods, self.plan.group_size, self._int8_texts(), self.plan.signed_scales,
            self._show,
        )  # fmt: skip
        try:
            own = self._own[self._next] if self._own else None
            with torch_threads(2):  # except the work of `PairedLayer` for each linear
                self._stream = layers.run(block, self._stream, own)
        except ValueError as error:
            raise _damaged(source, f"layers.{self._next}.{layer.current}", error) from error
        for name, rounded in layer.taken().items():
            self._rounded[f"layers.{self._next}.{name}.weight"] = rounded
        self._few += [f"layers.{self._next}.{name}" for name in layer.few]
        self._next += 1
        return_freed_memory()  # or it lies in the heap beside the next layer: a tenth of the peak
        exact, seen = self._stream.chunk(2)
        error = float((seen - exact).norm() / exact.norm())
        self._figure = f"layer {self._next}, error {error:.1%}"
        self._show(0)

    def _show(self, part: float) -> None:
        """Say that so much of the next layer is rounded."""
        assert self._layers is not None
        done = (self._next + part) / self._layers.config.n_layers
        self.stages.advance(done, self._figure)

    def _int8_texts(self) -> torch.Tensor:
        """Which texts calibrate for 8da4w."""
        places = torch.arange(len(self.tokens))
        if self.scheme is None:
            return places % 2 == 1
        return torch.full_like(places, self.scheme == Scheme.DYNAMIC_INT8, dtype=torch.bool)

    def _round_output(self, layers: LayerByLayer, source: Source, tensor: TensorPlan) -> Rounded:
        """An output layer of its own, which sees one row at a time and so no int8."""
        hidden = layers.ends.normed(self._stream)
        if "output_intermediate.weight" in source.tensors:
            hidden = hidden @ source.tensors["output_intermediate.weight"].T
        exact, seen = hidden.chunk(2)
        inputs = LinearInputs(exact, seen, self.plan.group_size)
        return _round_table(source, tensor, inputs, self.stages.advance)


def _round_table(
    source: Source, table: TensorPlan, inputs: LinearInputs, advance: Callable[[float], None]
) -> Rounded:
    """A table [V, K], some rows at a time, for those inputs of an output layer; `advance` is called
    with the completed fraction of the rows."""
    rows_of, (rows, columns) = source.tensors.rows_of(table.source), table.shape
    values = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, columns // inputs.group_size)
    for first in range(0, rows, _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        weight = rows_of(some).float()
        try:
            toward = inputs.toward_float(weight)
            values[some], scales[some] = inputs.second_order.round(toward, table.signed_scales)
        except ValueError as error:
            raise _damaged(source, "output", error) from error
        advance(min(some.stop, rows) / rows)
    return values, scales


def _damaged(source: Source, linear: str, error: ValueError) -> InputError:
    return InputError(
        f"{source.source}: {linear} {error} when the model reads the calibration text: the model "
        "is damaged, or its activations overflow; download it again, or use --method rtn, which "
        "does not run it"
    )


def rounding_error(rows_of: RowsOf, values: torch.Tensor, scales: torch.Tensor) -> RoundingError:
    """Against the weight itself, some rows at a time."""
    values, scales = values.flatten(0, -2), scales.flatten(0, -2)
    error = total = 0.0
    for first in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        of_rows = squared_error(rows_of(rows), values[rows], scales[rows])
        error, total = error + of_rows[0], total + of_rows[1]
    return RoundingError(error, total, negative_scales=int((scales < 0).sum()))
