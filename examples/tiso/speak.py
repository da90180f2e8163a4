"""Speaks a text with a program: prefill of its letters, then one code a step until it is over."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from task import CODEC_SIZE, FIRST_CODE, KEPT_CODES, LENGTH, START, STOP

from quatrain.backbone.pruned_vocabulary import ExpandLogits
from quatrain.runtime.runner import Runner

LONGEST = 3 * LENGTH  # codes, before a runaway is cut off


@dataclass(frozen=True)
class Speech:
    """The codes that came before the end, and whether the end came."""

    codes: list[int]
    ended: bool

    def right(self, expected: list[int]) -> float:
        """The share of positions, of the longer of the two, with the right code."""
        hits = sum(a == b for a, b in zip(self.codes, expected, strict=False))
        return hits / max(len(self.codes), len(expected))


class Speaker:
    """A program with the host's part around it: embeddings, both heads, pruned codes."""

    def __init__(self, runner: Runner, host: Path) -> None:
        tensors = load_file(host)
        self.runner = runner
        self.table = tensors["embed.weight"]
        self.codes, self.over = tensors["codes.weight"], tensors["over.weight"]
        self.over_bias = tensors["over.bias"]
        self.expand = ExpandLogits(dict(enumerate(KEPT_CODES)), CODEC_SIZE)

    @torch.inference_mode()
    def speak(self, text: torch.Tensor) -> Speech:
        """Say letters [LENGTH]."""
        self.runner.reset()
        codes: list[int] = []
        inputs = torch.cat((text, torch.tensor([START])))
        position = 0
        while len(codes) < LONGEST:
            given = self.table[inputs].unsqueeze(0)
            hidden = self.runner.forward(given, torch.tensor([position]))[:, -1]
            position += len(inputs)
            code = int(self.expand(hidden @ self.codes.T).argmax())
            if float(hidden @ self.over.T + self.over_bias) > 0 or code == STOP:
                return Speech(codes, ended=True)
            codes.append(code)
            inputs = torch.tensor([code + FIRST_CODE])
        return Speech(codes, ended=False)
