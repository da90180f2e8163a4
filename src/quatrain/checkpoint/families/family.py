"""The description of a model family: how each kind of file that holds one is read.

A reading describes how the files differ from those of a plain Llama, in the fields of a params.json
(see `quatrain.backbone.config`) and in Meta's tensor names.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.rope_scaling import rope_scaling
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params

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
# transformers' names of one activation.
APPROXIMATE_GELU: dict[str | None, str] = dict.fromkeys(
    ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu_approx"
)


@dataclass(frozen=True)
class HuggingFaceReading:
    """A folder of the Hugging Face hub: config.json and tensors.

    `model_type`: what config.json calls the family.
    `defaults`: the values of fields that config.json omits, as in transformers' configuration of
    that `model_type`.
    `sizes`: the same for fields that every config.json states, except that of a text model within a
    multimodal model (`families.multimodal`), which states only differences.
    `params(fields)`: the fields of params.json that are not read in the same way for every family;
    `rope`: the same for the rotary embedding.
    `names`: the modules whose names differ from Llama's, and Meta's names for them.
    `tensors(stored, fields)`: splits or changes tensors that Meta's layout stores differently,
    still under Hugging Face names; a quantized matrix F is F.weight, F.scales and perhaps F.zeros
    there.
    `unused(stored, fields)`: the names of tensors that files may have and the model does not use;
    they are left out, with a note.
    `activations`: the supported values of `hidden_act`, and the `act_fn` of each; None stands for a
    missing field.
    `aliases`: other names that its configuration class accepts for fields.
    `transposed`: linears whose matrices in floating point are stored as [K, N].
    `on_hub`: parts of tensor names that differ between the hub and transformers, in order.
    `by_layer`: whether `params` reads `per_layer_config`, the fields of single layers.
    `tied`: whether output and embedding are tied if config.json does not say.
    `biases`: which linears have one.
    `notes(fields)`: complete sentences about fields whose values are not used.
    `norm_eps`: of its norms, if its class fixes it.
    `context`: the longest one, in tokens, if its class has no such field.
    `unnamed`: what `architectures` has in files without a `model_type`, as some are that come with
    code of their own.
    """

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
    transposed: tuple[str, ...] = ()
    activations: Mapping[str | None, str] = field(
        default_factory=lambda: {"silu": "silu", "swish": "silu"}
    )
    by_layer: bool = False
    tied: bool = False
    biases: Biases = Biases()
    notes: Callable[[Fields], tuple[str, ...]] = lambda fields: ()
    norm_eps: float | None = None
    context: int | None = None
    unnamed: str = ""

    def called(self, name: str) -> str:
        """What transformers calls the tensor `name` of a file of the hub."""
        for part, own in self.on_hub.items():
            name = name.replace(part, own)
        return name

    def rows_first(self, name: str, tensor: StoredTensor) -> StoredTensor:
        """The tensor `name`, a matrix as [N, K]; those of quantizers are so already."""
        module = name.removesuffix(".weight")
        is_floating = tensor.dtype.is_floating_point and len(tensor.shape) == 2
        if module == name or not is_floating or not module.endswith(self.transposed):
            return tensor
        return tensor.changed(lambda stored: stored.T.contiguous(), tensor.shape[::-1])


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

    Keys, names and their meaning are those of llama.cpp's converter and loader. A value that these
    fix for an architecture, without writing it into the file, is fixed by `params` as well.

    `architecture`: the file's general.architecture. `half_split`: whether its Q and K rows are in
    that order (interleaved otherwise). `params(metadata)`: fields of params.json beyond a plain
    Llama's; a key that changes the computation is refused if this function does not read it.
    `rope`: the same for the rotary embedding. `names`: the tensors whose names differ from Llama's,
    and Meta's names for them. `fused(metadata)`: tensors that contain several, with the names and
    rows of the parts. `filters`: tensors [channels, taps] with a filter for each channel, which are
    [channels, 1, taps] in other files. `tensors(tensors, metadata)`: splits or reorders tensors
    that Meta's layout stores differently; `floats(tensors, metadata)`: the same in floating point,
    for what needs values. `unused(names, metadata)`: tensors that files may have
    and the model does not use; they are left out, with a note. `biased`: whether Q, K and V always
    have a bias."""

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
    floats: Callable[[LazyTensors, GgufMetadata], LazyTensors] = lambda tensors, metadata: tensors
    unused: Callable[[Iterable[str], GgufMetadata], set[str]] = lambda names, metadata: set()
    biased: bool = False


@dataclass(frozen=True)
class MetaReading:
    """A folder of Meta's: params.json and tensors.

    `marks`: fields that no other family's params.json has; a family without marks reads all other
    files. `defaults(params)`: the values of missing fields. `tensors(stored, params, source)`: the
    tensors of a file or of a shard under the backbone's names. `params(params, tensors, source)`:
    the fields for the backbone; `tensors` is the result of the function of that name."""

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
