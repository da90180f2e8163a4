"""What is known of a model family: how each kind of file that holds one is read.

Everything is told apart from a plain Llama: a reading states what its files have otherwise, in the
fields of a params.json (see `quatrain.backbone.config`) and in Meta's tensor names.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.rope_scaling import rope_scaling
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope_parameters import rope_params

Params = dict[str, Any]  # fields of a params.json


@dataclass(frozen=True)
class Biases:
    """Which linears have a bias: the field of config.json that says so, or whether they do whatever
    it says.

    `qkv` and `output`: of attention; `feed_forward`: as `mlp_bias` says in families that have that
    field, and else this."""

    qkv: str | bool = "attention_bias"
    output: str | bool = "attention_bias"
    feed_forward: str | bool = False


NO_BIASES, QKV_BIASES = Biases(False, False), Biases(True, False)


@dataclass(frozen=True)
class HuggingFaceReading:
    """A folder of the Hugging Face hub: config.json and tensors.

    `model_type`: what config.json calls the family. `defaults`: what config.json's fields are where
    it leaves them out, as transformers' configuration of that `model_type` has them. `sizes`:
    likewise of those that every config.json states, except of a text model that is the part of
    another (`families.multimodal`), which states differences only.
    `params(fields)`: of config.json's fields, those of params.json that are not read for every
    family, in place of what was read; `rope`: likewise, of the rotary embedding.
    `names`: of its tensors' modules, those called otherwise, to Meta's. `tensors(stored, fields)`:
    its tensors, cut or changed where Meta's naming has them otherwise, under Hugging Face names
    still; a quantized matrix F is F.weight, F.scales and perhaps F.zeros by then.
    `unused(stored, fields)`: the names of tensors that files may have and the model does not
    compute with, which are left out and told of.
    `activations`: the values of `hidden_act` that are implemented, to those of `act_fn`; None is
    one that config.json does not state. `aliases`: fields that its configuration class takes in
    place of others where they are there, to those. `on_hub`: parts of its tensors' names as the hub
    has them, where transformers reads them under others, to those; in order.
    `by_layer`: whether `params` reads `per_layer_config`, fields of some layers alone.
    `tied`: whether the embedding serves as a missing output layer where config.json does not
    say. `biases`: which linears have one."""

    model_type: str
    defaults: Mapping[str, Any]
    sizes: Mapping[str, int] = field(default_factory=dict)
    params: Callable[[Fields], Params] = lambda fields: {}
    rope: Callable[[Fields], Params] = rope_params
    names: Mapping[str, str] = field(default_factory=dict)
    tensors: Callable[[LazyTensors, Fields], LazyTensors] = lambda stored, fields: stored
    unused: Callable[[LazyTensors, Fields], set[str]] = lambda stored, fields: set()
    aliases: Mapping[str, str] = field(default_factory=dict)
    on_hub: Mapping[str, str] = field(default_factory=dict)
    activations: Mapping[str | None, str] = field(
        default_factory=lambda: {"silu": "silu", "swish": "silu"}
    )
    by_layer: bool = False
    tied: bool = False
    biases: Biases = Biases()

    def called(self, name: str) -> str:
        """What transformers calls the tensor `name` of a file of the hub."""
        for part, own in self.on_hub.items():
            name = name.replace(part, own)
        return name


def sizes(hidden: int, intermediate: int, layers: int) -> dict[str, int]:
    """What a text_config may leave out of these, for `HuggingFaceReading.sizes`."""
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
    }


@dataclass(frozen=True)
class GgufReading:
    """A GGUF file: metadata and tensors.

    Keys, names and what they mean are those of llama.cpp's converter and loader. Where these fix a
    figure for an architecture and write none into the file, `params` fixes it as well.

    `architecture`: the file's general.architecture. `half_split`: whether its Q and K rows are in
    that order (interleaved otherwise). `params(metadata)`: fields of params.json beyond a plain
    Llama's; a key that changes what is computed is refused where this does not look it up. `rope`:
    likewise, of the rotary embedding. `names`: of its tensors, those called otherwise, to Meta's.
    `fused(metadata)`: of each tensor that is several in one, the parts' names and rows. `filters`:
    tensors [channels, taps] of a filter for each channel, [channels, 1, taps] elsewhere.
    `tensors(tensors, metadata)`: its tensors by name, those cut or put in order that Meta's naming
    has otherwise. `unused(names, metadata)`: those that files may have and the model does not
    compute with, which are left out and told of. `biased`: whether Q, K and V always have a
    bias."""

    architecture: str
    half_split: bool
    params: Callable[[GgufMetadata], Params] = lambda metadata: {}
    rope: Callable[[GgufMetadata], Params] = rope_scaling
    names: Mapping[str, str] = field(default_factory=dict)
    fused: Callable[[GgufMetadata], dict[str, dict[str, int]]] = lambda metadata: {}
    filters: frozenset[str] = frozenset()
    tensors: Callable[[dict[str, GgufTensor], GgufMetadata], dict[str, GgufTensor]] = (
        lambda tensors, metadata: tensors
    )
    unused: Callable[[Iterable[str], GgufMetadata], set[str]] = lambda names, metadata: set()
    biased: bool = False


@dataclass(frozen=True)
class MetaReading:
    """A folder of Meta's: params.json and tensors.

    `marks`: fields that no other family's params.json has; without any, it is that of all others.
    `defaults(params)`: what it means by fields that it leaves out. `tensors(stored, params,
    source)`: the tensors of a file or of a shard under the backbone's names. `params(params,
    tensors, source)`: its fields in the backbone's; `tensors` is what the other made of them."""

    marks: frozenset[str] = frozenset()
    defaults: Callable[[Params], Params] = lambda params: {}
    tensors: Callable[[LazyTensors, Params, str], LazyTensors] = lambda stored, params, source: (
        stored
    )
    params: Callable[[Params, LazyTensors, str], Params] = lambda params, tensors, source: params


@dataclass(frozen=True)
class Family:
    """A reading for each kind of file that the family comes in."""

    hugging_face: HuggingFaceReading
    gguf: GgufReading | None = None
    meta: MetaReading | None = None
