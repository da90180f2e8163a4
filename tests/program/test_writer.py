"""Writing programs back: the same bytes, or the same program laid out anew."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.programs import EVERY, VULKAN, GraphMaker, artifact, run_tokens

from quatrain.errors import InputError
from quatrain.program import Constant, Plain, open_program, write_program


@pytest.mark.parametrize("name", EVERY)
def test_an_unedited_program_keeps_its_bytes(name: str, tmp_path: Path) -> None:
    output = tmp_path / "same.pte"
    write_program(open_program(artifact(name)), output)
    assert output.read_bytes() == artifact(name).read_bytes()


def _laid_out_anew(source: Path, output: Path) -> Path:
    """Edit and undo, so that every FlatBuffer is encoded again."""
    program = open_program(source)
    program.vulkan.values.append(Plain("int", 7))
    write_program(program, output)
    program = open_program(output)
    program.vulkan.values.pop()
    write_program(program, output)
    return output


@pytest.mark.parametrize("name", VULKAN)
def test_a_rewritten_program_is_the_same_program(name: str, tmp_path: Path) -> None:
    from executorch.exir._serialize._program import deserialize_pte_binary

    output = _laid_out_anew(artifact(name), tmp_path / "anew.pte")
    ours, before = open_program(output), open_program(artifact(name))
    assert ours.vulkan == before.vulkan
    assert ours.metadata == before.metadata
    assert {k: bytes(ours.named_bytes(k)) for k in ours.named_data} == {
        k: bytes(before.named_bytes(k)) for k in before.named_data
    }
    again = _laid_out_anew(output, tmp_path / "again.pte")
    assert again.read_bytes() == output.read_bytes()
    theirs = deserialize_pte_binary(output.read_bytes())  # ExecuTorch reads it as well
    assert theirs.named_data is not None
    assert set(theirs.named_data.pte_data) == set(before.named_data)


def test_a_rewritten_program_computes_the_same(tmp_path: Path) -> None:
    source = artifact("peer-8da4w-fp16-emb4")
    output = _laid_out_anew(source, tmp_path / "anew.pte")
    assert run_tokens(output).equal(run_tokens(source))


def test_constants_inside_the_delegate_are_kept(tmp_path: Path) -> None:
    """Older exporters store constants behind the graph, not as named data."""
    maker = GraphMaker()
    out = maker.tensor("float32", 4)
    first = maker.constant(np.arange(4, dtype=np.float32))
    second = maker.constant(np.arange(4, 8, dtype=np.float32))
    maker.call("aten.add.Tensor", first, second, maker.plain("int", 1), out)
    raw = b"".join(maker.data.values())
    maker.data.clear()
    maker.graph.constants = [Constant(16, None, 0), Constant(16, None, 16)]
    path = _with_raw_section(maker.save(tmp_path / "old.pte", [out]), raw)
    edited = open_program(path)
    edited.vulkan.values.append(Plain("int", 7))
    write_program(edited, tmp_path / "edited.pte")
    for each in (path, tmp_path / "edited.pte"):
        graph = open_program(each).vulkan
        assert graph.constant(second).tolist() == [4, 5, 6, 7]


def _with_raw_section(path: Path, raw: bytes) -> Path:
    """Append `raw` to the only segment, which is the delegate and ends the file."""
    program = open_program(path)
    start, size = program.segment_range(0)
    data = bytearray(path.read_bytes()[: start + size] + raw)
    data[start + 22 : start + 30] = len(raw).to_bytes(8, "little")
    # The segment's size in the FlatBuffer: the only u64 that equals it.
    at = data.index(size.to_bytes(8, "little"))
    data[at : at + 8] = (size + len(raw)).to_bytes(8, "little")
    path.write_bytes(data)
    return path


def test_nothing_half_written_remains(tmp_path: Path) -> None:
    kept = tmp_path / "kept.pte"
    kept.write_bytes(b"precious")
    program = open_program(artifact("peer-8da4w-fp32"))
    program.vulkan.values.append(Plain("no such kind", 7))
    with pytest.raises(KeyError):
        write_program(program, kept)
    assert kept.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [kept]
    with pytest.raises(InputError, match="cannot be written"):
        write_program(open_program(artifact("peer-8da4w-fp32")), tmp_path / "absent" / "x.pte")


BIG = """
import sys
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.selection import Selection
from quatrain.stages import peak_rss_bytes
source, output = sys.argv[1:]
program = open_program(source)
assert len(retarget(program, "8da4w", Selection(patterns=("operator_?",)))) == 10
write_program(program, output)
print(peak_rss_bytes())
"""


def test_a_4_gb_program_is_rewritten_in_little_memory(tmp_path: Path) -> None:
    """Sparse on disk. Ten linears change, whose group sums are computed from 64 MB each."""
    rows, columns, count = 16384, 8192, 64
    maker = GraphMaker()
    x = maker.input("float32", 1, columns)
    scales = maker.constant(np.ones((columns // 128, rows), dtype=np.float32))
    group, null = maker.plain("int", 128), maker.plain("null")
    out = x
    for _ in range(count):
        weights = maker.hole("uint8", rows, columns // 2)
        out = maker.tensor("float32", 1, rows)
        maker.call("et_vk.linear_q4gsw.default", x, weights, scales, group, null, out)
    source = maker.save(tmp_path / "big.pte", [out])
    assert source.stat().st_size > 4e9
    assert source.stat().st_blocks * 512 < 1e7
    output = tmp_path / "out.pte"
    command = [sys.executable, "-c", BIG, str(source), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1e9
    assert output.stat().st_size > 4e9
    assert output.stat().st_blocks * 512 < 1e8  # holes stay holes
    graph = open_program(output).vulkan
    sums = graph.operators[1].named_args["weight_sums"]
    assert graph.constant(sums).shape == (64, rows)
    assert int(graph.constant(sums)[0, 0]) == -8 * 128  # zero bytes are the value -8
