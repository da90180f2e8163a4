"""A checkpoint in the pre-quantized layout: int4 linears, their scales, and the rest.

For a linear F: F.weight int8 [N, K] in [-8, 7]; F.scales [N, K / group_size] floating; F.zeros
of that shape, all zero, optional; F.bias optional. The output layer: int4 groups, or int8 per
channel with scales [N] or [N, 1]. The embedding: int4 groups, int8 per channel or per group, or
floating point without scales. A linear may have a LoRA adaptor: F.adaptor.A.weight [rank, K] and
F.adaptor.B.weight [N, rank], floating, its scale in B.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from quatrain.backbone.config import BackboneConfig
from quatrain.checkpoint.check_structure import check_structure
from quatrain.checkpoint.check_values import check_tensor_values
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.memory_map import was_read
from quatrain.checkpoint.layout import EMBEDDING, OUTPUT, StoredModel
from quatrain.checkpoint.names_in_file import InFile
from quatrain.int4 import Scheme
from quatrain.linear.packing import is_int4
from quatrain.stages import Stages
from quatrain.tokenizer.copies import copy_tokenizer_files
from quatrain.tokenizer.end_tokens import token_ids
from quatrain.tokenizer.files import tokenizer_files_in


@dataclass(frozen=True)
class Checkpoint:
    """An int4 checkpoint. Its structure has been checked; its data has not been read yet.

    Attributes:
        tensors: Memory-mapped tensors by Meta name; a format other than the layout is repacked when
            a tensor is read. An int4 linear has int8 [N, K] in [-8, 7] and floating-point scales
            [N, K / group size].
        config: The configuration of the backbone.
        params: The whole params.json.
        group_size: The number of weights of a row that share a scale.
        source: The file or folder that holds the tensors.
        tokenizer_files: The tokenizer files beside them.
        notes: Complete sentences about statements in its files that are not true.
    """

    tensors: LazyTensors
    config: BackboneConfig
    params: dict[str, Any]
    group_size: int
    source: Path
    tokenizer_files: list[Path]
    notes: tuple[str, ...] = ()

    @cached_property
    def embedding_kind(self) -> Literal["int8", "int4", "fp"]:
        """How the embedding is stored. If params.json does not say whether it is grouped, its
        values are read to find out."""
        if f"{EMBEDDING}.scales" not in self.tensors:
            return "fp"
        shape = self.tensors.stored[f"{EMBEDDING}.scales"].shape
        declared = self._declared("embedding")
        if len(shape) == 1 or (shape[1] == 1 and declared is None):
            return "int8"  # one scale a row, unless a row is said to be one group
        if declared in ("int4", "int8"):
            return declared
        weight = self.tensors[f"{EMBEDDING}.weight"]
        fits = is_int4(weight)
        was_read(weight.nbytes)
        return "int4" if fits else "int8"

    @cached_property
    def output_kind(self) -> Literal["int4", "int8", "fp", "tied"]:
        """How the output layer is stored; 'tied' if the file has none and the embedding is used."""
        if f"{OUTPUT}.weight" not in self.tensors:
            return "tied"
        if f"{OUTPUT}.scales" not in self.tensors:
            return "fp"
        scales = self.tensors.stored[f"{OUTPUT}.scales"]
        inputs = self.tensors.stored[f"{OUTPUT}.weight"].shape[-1]
        one_group = self.group_size == inputs and self._declared("output") == "int4"
        return "int8" if _per_channel(scales.shape) and not one_group else "int4"

    @property
    def table_kinds(self) -> dict[str, str]:
        """How the embedding and the output layer are stored; a tied output layer is stored as the
        embedding."""
        output = self.embedding_kind if self.output_kind == "tied" else self.output_kind
        return {EMBEDDING: self.embedding_kind, OUTPUT: output}

    def check_values(self, stages: Stages | None = None) -> None:
        """Read every tensor once, one at a time, and check its values.

        int4 integers must be in [-8, 7], scales finite and not 0, zeros all zero, floating-point
        tensors finite. Raises `InputError` that names the first wrong tensor and element.
        """
        with (stages or Stages())("check the checkpoint's values") as advance:
            for index, name in enumerate(self.tensors):
                advance(index / len(self.tensors))
                tensor = self.tensors[name]
                self.check_tensor(name, tensor)
                was_read(tensor.nbytes)

    def write_tokenizer(self, folder: Path) -> list[Path]:
        """Write tokenizer.json and tokenizer_config.json to `folder`; the latter states the chat
        template and the ids that begin and end a text. Returns the written files; none if there is
        no tokenizer."""
        if not self.tokenizer_files:
            return []
        return copy_tokenizer_files(
            self.tokenizer_files[0].parent,
            folder,
            self.params.get("bos_idx"),
            token_ids(self.params.get("eos_idx")),
        )

    def check_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Like `check_values`, for the single tensor `tensor` called `name`."""
        int4 = name.rpartition(".")[0] not in self._int8_modules
        check_tensor_values(tensor, name, str(self.source), int4)

    @cached_property
    def _int8_modules(self) -> set[str]:
        kinds = ((EMBEDDING, self.embedding_kind), (OUTPUT, self.output_kind))
        return {module for module, kind in kinds if kind == "int8"}

    def _declared(self, part: str) -> Any:
        arguments = self.params.get("quantization_args")
        return arguments.get(part) if isinstance(arguments, dict) else None


def checked_checkpoint(
    tensors: LazyTensors,
    params: dict[str, Any],
    config: BackboneConfig,
    source: Path,
    folder: Path,
    in_file: InFile = str,
) -> Checkpoint:
    """The checkpoint of `tensors`, whose names, shapes and dtypes fit `config`, that of `params`.

    Errors name `source`, and tensors by their names `in_file`; the tokenizer is searched in
    `folder`. Raises `InputError` if something does not fit.
    """
    group_size = check_structure(StoredModel(tensors.stored, config, str(source), in_file), params)
    arguments = params.get("quantization_args")
    stated = arguments if isinstance(arguments, dict) else {"scheme": Scheme.DYNAMIC_INT8}
    return Checkpoint(
        tensors=tensors,
        config=config,
        params={**params, "quantization_args": {**stated, "group_size": group_size}},
        group_size=group_size,
        source=source,
        tokenizer_files=tokenizer_files_in(folder),
    )


def _per_channel(scales_shape: tuple[int, ...]) -> bool:
    return len(scales_shape) == 1 or scales_shape[1] == 1
