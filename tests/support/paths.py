"""Where things are that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
# Programs that ExecuTorch's own exporter wrote, with what they compute (make_artifacts.py).
ARTIFACTS = ROOT / "tests" / "program" / "artifacts"
# Checkpoints that other tools wrote, with the scripts that made them.
WRITTEN_ELSEWHERE = ROOT / "tests" / "checkpoint" / "written_elsewhere"
# Programs with the logits that ExecuTorch's own Vulkan runtime gave, and larger ones of them beside
# the repository, where they are there.
CONFORMANCE = ROOT / "tests" / "runtime" / "conformance"
REAL_RUNTIME = ROOT.parent / "shared" / "real-runtime"


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file in `folder`, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
