"""A runner that computes only the new part of each text."""

from itertools import takewhile

import torch

from quatrain.runtime.runner import Runner, forward_in_parts


class KeptContext:
    """A `Runner` whose `reset` keeps the KV cache: of the next text it computes the tokens after
    those that it has in common with the last one, one at least; or all of them, where the last text
    goes on otherwise and the program cannot go back in it (`rewinds`).

    Attributes:
        runner: What computes, which attends to no position after a token's own.
        computed: How many tokens it has computed since the last `reset`.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.computed = 0
        self._held: list[int] = []
        runner.reset()

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """As `Runner.forward`, of token ids int64 [1, T]."""
        start = int(input_pos)
        text = self._held[:start] + tokens[0].tolist()
        same = takewhile(lambda pair: pair[0] == pair[1], zip(self._held, text, strict=False))
        known = min(sum(1 for _ in same), len(text) - 1)
        rewinds = getattr(self.runner, "rewinds", True)
        if known < len(self._held) and not rewinds:
            known = 0
        # Were it to fail, nothing of what it overwrites would be known.
        self._held = text[:known] if rewinds else []
        logits = forward_in_parts(self.runner, torch.tensor([text[known:]]), known)
        self._held, self.computed = text, self.computed + len(text) - known
        return logits

    def reset(self) -> None:
        """A new text begins."""
        self.computed = 0

    def forget(self) -> None:
        """Also clear the context."""
        self.runner.reset()
        self._held, self.computed = [], 0
