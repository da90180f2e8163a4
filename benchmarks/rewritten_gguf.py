"""A GGUF model with its fields as they are and its tensors in other types."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# (a tensor's name, its values in float32, the model's layers) -> what is written, and its type.
Encode = Callable[[str, np.ndarray, int], tuple[np.ndarray, Type]]


def rewritten_gguf(model: Path, path: Path, encode: Encode) -> Path:
    """The GGUF file `model` written to `path`, each tensor as `encode` gives it."""
    source, writer = gguf.GGUFReader(model), gguf.GGUFWriter(path, "llama")
    for field in source.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(field.name, field.contents())
        else:
            writer.add_key_value(field.name, field.contents(), field.types[0])
    layers = source.fields["llama.block_count"].contents()
    for tensor in source.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        data, kind = encode(tensor.name, weight, layers)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
