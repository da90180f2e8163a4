"""Gemma 3 270M, and what llama.cpp makes of it."""

import os
from dataclasses import dataclass
from pathlib import Path

import gguf
import pytest
from tests.support.formats.gguf_files import gguf_file
from tests.support.made_once import made_once
from tests.support.models.real_models import RealModel

VARIABLE = "QUATRAIN_GEMMA"


def gemma_model(shared: Path) -> RealModel:
    """With a context of 2048; skips where no variable names the GGUF file."""
    file = os.environ.get(VARIABLE)
    if not file:
        pytest.skip(f"Gemma 3 270M is asked for by {VARIABLE}=gemma.gguf; `make gemma` fetches it")
    return RealModel("gemma", lambda: Path(file).resolve(strict=True), shared, context=2048)


def in_float32(model: RealModel) -> Path:
    """The model's GGUF file with all tensors in float32: llama.cpp would round what it multiplies
    them by to int8 where they are quantized."""

    def write(folder: Path) -> None:
        source = gguf.GGUFReader(model.fetch())
        architecture = source.fields["general.architecture"].contents()
        with gguf_file(folder / "model.gguf", architecture) as writer:
            for field in source.fields.values():
                if field.name.startswith("GGUF.") or field.name == "general.architecture":
                    continue
                if field.types[0] == gguf.GGUFValueType.ARRAY:
                    writer.add_array(field.name, field.contents())
                else:
                    writer.add_key_value(field.name, field.contents(), field.types[0])
            for tensor in source.tensors:
                writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))

    return made_once(model.shared / f"{model.name}-float32", write) / "model.gguf"


@dataclass(frozen=True)
class Continuation:
    """What llama.cpp writes greedily: `tokens`, each one's log probability, and how much less that
    of the next likely one is."""

    tokens: list[int]
    logprobs: list[float]
    leads: list[float]


class LlamaCpp:
    """llama.cpp on a GGUF file, in float32, keys and values too. Skips without xllamacpp."""

    def __init__(self, path: Path) -> None:
        self.library = pytest.importorskip("xllamacpp")
        params = self.library.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 512, 1, False, 0
        params.cache_type_k = params.cache_type_v = self.library.ggml_type.GGML_TYPE_F32
        flash = self.library.llama_flash_attn_type
        params.flash_attn_type = flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = self.library.Server(params)

    def greedy(self, prompt: str, count: int) -> Continuation:
        """`count` tokens that follow `prompt`."""
        request = {"prompt": prompt, "n_predict": count, "temperature": 0.0, "n_probs": 2}
        answer = self.server.handle_completions(request)
        steps = answer["choices"][0]["logprobs"]["content"]
        likely = [[one["logprob"] for one in step["top_logprobs"]] for step in steps]
        return Continuation(
            [step["id"] for step in steps],
            [step["logprob"] for step in steps],
            [first - second for first, second in likely],
        )
