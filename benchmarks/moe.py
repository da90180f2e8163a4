"""A mixture of int4 experts on ExecuTorch's CPU runtime, computed in three ways, timed.

All experts for every token; those alone that a token of the call picks, by branches; or the
picked ones' weights gathered for each token, dequantized, and multiplied by portable kernels.

    OMP_NUM_THREADS=1 python benchmarks/moe.py
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from executorch.exir import to_edge
from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
from torch import nn

from measure import machine, print_table, write_json
from quatrain.backbone.layers.moe import MixtureOfExperts, skip_experts
from quatrain.backbone.params.params import config_from_params
from quatrain.export.lowering.executorch_internals import edge_config
from quatrain.export.xnnpack.delegated_linears import delegate_linears
from quatrain.linear import Int8DynActInt4WeightLinear
from quatrain.quiet import quiet

PARAMS = {
    "dim": 512, "hidden_dim": 1024, "num_experts": 16, "num_activated_experts": 1,
    "n_layers": 1, "n_heads": 8, "vocab_size": 64, "max_seq_len": 128,
}  # fmt: skip
TOKENS = (1, 8, 64)
RUNS = 30


def mixture() -> MixtureOfExperts:
    """Random int4 experts; the router stays in floating point."""
    torch.manual_seed(0)
    config = config_from_params(PARAMS, "moe.py")
    made = MixtureOfExperts(config)
    made.config = config  # where the lowering of linears looks for the context
    for name, linear in list(made.named_modules()):
        if isinstance(linear, nn.Linear) and name != "router":
            int4 = Int8DynActInt4WeightLinear(
                linear.in_features, linear.out_features, bias=False, groupsize=32
            )
            int4.weight.random_(-8, 8)
            int4.scales.uniform_(0.001, 0.01)
            parent, _, attribute = name.rpartition(".")
            setattr(made.get_submodule(parent), attribute, int4)
    return made.eval().requires_grad_(False)


class Gathered(nn.Module):
    """The experts that each token picks (one), from tables [experts, N, K] in float32."""

    def __init__(self, original: MixtureOfExperts) -> None:
        super().__init__()
        self.config = original.config
        self.original = original
        for part in ("w1", "w2", "w3"):
            weights = [getattr(e, part).dequantized_weight() for e in original.experts]
            self.register_buffer(part, torch.stack(weights))
        original.experts = nn.ModuleList()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.original.scores(x)
        picked = scores.argmax(-1).view(-1)
        column = (x * scores.amax(-1, keepdim=True)).view(-1, x.shape[-1], 1)
        gate = torch.bmm(self.w1.index_select(0, picked), column)
        up = torch.bmm(self.w3.index_select(0, picked), column)
        down = torch.bmm(self.w2.index_select(0, picked), gate * torch.sigmoid(gate) * up)
        return self.original.shared_expert(x) + down.view(x.shape)


def skipping() -> nn.Module:
    made = mixture()
    skip_experts(made)
    return made


WAYS: dict[str, Callable[[], nn.Module]] = {
    "all experts": mixture,
    "picked experts, by branches": skipping,
    "picked experts, gathered": lambda: Gathered(mixture()),
}


def program(module: nn.Module) -> bytes:
    tokens = torch.export.Dim("tokens", min=1, max=PARAMS["max_seq_len"])
    with torch.no_grad(), quiet():
        delegate_linears(module)
        traced = torch.export.export(
            module, (torch.zeros(1, 3, PARAMS["dim"]),), dynamic_shapes=({1: tokens},)
        )
        return to_edge(traced, compile_config=edge_config()).to_executorch().buffer


def milliseconds(buffer: bytes, tokens: int) -> float:
    loaded = _load_for_executorch_from_buffer(buffer)
    x = torch.randn(1, tokens, PARAMS["dim"], generator=torch.Generator().manual_seed(tokens))
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        loaded.forward((x,))
        times.append(time.perf_counter() - begun)
    return sorted(times)[RUNS // 2] * 1e3


def main() -> None:
    where, rows = machine(), {}
    for name, make in WAYS.items():
        buffer = program(make())
        rows[name] = {"bytes": len(buffer)} | {
            f"ms_for_{tokens}_tokens": milliseconds(buffer, tokens) for tokens in TOKENS
        }
    title = (
        f"{PARAMS['num_experts']} experts of {PARAMS['dim']} x {PARAMS['hidden_dim']}, one a token"
    )
    figures = [
        [name, f"{row['bytes'] / 1e6:.1f}", *(f"{row[f'ms_for_{t}_tokens']:.2f}" for t in TOKENS)]
        for name, row in rows.items()
    ]
    print_table(title, ["", "MB", *(f"{t} tokens, ms" for t in TOKENS)], figures)
    write_json(
        Path(__file__).parent / "results" / "moe.json", {"machine": where, "shape": PARAMS, **rows}
    )


if __name__ == "__main__":
    main()
