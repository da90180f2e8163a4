"""Dispatches and bytes of a call on a phone: our programs against ExecuTorch's own exporter.

    python benchmarks/graph.py               three layers of SmolLM2-135M (two minutes)
    python benchmarks/graph.py --layers 30   all of it (ten minutes, 2.6 GB)

Both exporters read the same tensors at the same depth, and all is counted from the graphs
(`quatrain.program.inspect.dispatches`). "slimmed" is the peer's own program after
`quatrain retarget --slim`: it has the same constants, so that its logits must be the same bits.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from measure import machine, measure, print_table, write_json
from peer import CONTEXT, peer_command, write_peer_checkpoint
from quatrain.program import open_program
from quatrain.program.inspect.dispatches import call_costs
from quatrain.runtime.reference import ReferenceRunner

RESULTS = Path(__file__).parent / "results" / "graph.json"
TOKENS = list(range(100, 117))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=3, help="of SmolLM2's 30 (default 3)")
    layers = parser.parse_args().layers
    with tempfile.TemporaryDirectory() as folder:
        programs = make_programs(Path(folder), layers)
        peer, slimmed = (logits(programs[name]) for name in ("peer", "peer, slimmed"))
        results = {
            "layers": layers,
            "slimmed_gives_the_peers_bits": bool(torch.equal(peer, slimmed)),
            "programs": {name: costs(path) for name, path in programs.items()},
            "machine": machine(),
        }
    write_json(RESULTS, results)
    show(results)


def make_programs(work: Path, layers: int) -> dict[str, Path]:
    """The peer's program, that slimmed, and ours of the peer's checkpoint."""
    log = work / "log"
    quatrain = [sys.executable, "-m", "quatrain"]
    model = work / "model"
    model.mkdir()
    write_peer_checkpoint(model, layers)
    programs = {"peer": work / "peer.pte", "peer, slimmed": work / "slimmed.pte"}
    measure(peer_command(model, "vulkan", programs["peer"]), log)
    slim = ["retarget", str(programs["peer"]), "--slim", "-o", str(programs["peer, slimmed"])]
    measure([*quatrain, *slim], log)
    for embedding in ("fp", "int4"):
        checkpoint, output = work / f"checkpoint-{embedding}", work / f"{embedding}.pte"
        quantize = ["quantize", str(model), "-o", str(checkpoint), "--method", "rtn"]
        measure([*quatrain, *quantize, "--embedding", embedding], log)
        export = ["export", str(checkpoint), "-o", str(output), "--max-seq-len", str(CONTEXT)]
        measure([*quatrain, *export], log)
        programs[f"ours, {embedding} embedding"] = output
    return programs


def costs(program: Path) -> dict:
    """The prompt's and the decode step's dispatches and bytes, in all and by operator."""
    prompt, step = call_costs(open_program(program).vulkan)
    return {
        name: {
            "tokens": call.tokens,
            "dispatches": call.dispatches,
            "bytes": call.bytes,
            "by_operator": {kind: cost.dispatches for kind, cost in call.operators.items()},
        }
        for name, call in (("prompt", prompt), ("decode", step))
    }


def logits(program: Path) -> torch.Tensor:
    """Of a prompt and of four steps after it."""
    runner = ReferenceRunner(program)
    rows = [runner.forward(torch.tensor([TOKENS]), torch.tensor([0]))]
    for place in range(len(TOKENS), len(TOKENS) + 4):
        rows.append(runner.forward(torch.tensor([[TOKENS[0]]]), torch.tensor([place])))
    return torch.cat(rows)


def show(results: dict) -> None:
    peer = results["programs"]["peer"]
    rows = []
    for name, calls in results["programs"].items():
        row = [name]
        for call in ("decode", "prompt"):
            found, whole = calls[call], peer[call]["dispatches"]
            row += [
                str(found["dispatches"]),
                f"{100 * (found['dispatches'] - whole) / whole:+.1f} %",
                f"{found['bytes'] / 1e6:.2f}",
            ]
        rows.append(row)
    prompt = peer["prompt"]["tokens"]
    headings = ["8da4w", "decode", "of the peer's", "MB", f"prompt of {prompt}", "", "MB"]
    print_table(f"SmolLM2-135M, {results['layers']} layers, context 512", headings, rows)
    print("the slimmed program gives the peer's bits:", results["slimmed_gives_the_peers_bits"])


if __name__ == "__main__":
    main()
