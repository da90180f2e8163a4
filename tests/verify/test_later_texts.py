"""A program that goes on with the state of an earlier text is told."""

from tests.support.models.peer_models import LFM2, write_peer_checkpoint
from tests.support.models.tiny_programs import TEXT
from tests.support.programs import artifact

from quatrain.program import open_program
from quatrain.targets.cpu import examine_for_cpu
from quatrain.verify.verify import verify_program


def test_executorchs_lfm2_is_right_and_what_an_app_must_do_is_told(tmp_path) -> None:
    program = artifact("other/peer-xnnpack-lfm2")
    write_peer_checkpoint(tmp_path, LFM2)
    report = verify_program(program, tmp_path, ("executorch",), (TEXT, "w7 w1 w2"), new_tokens=3)
    assert report.passed
    (note,) = report.notes
    assert "must load the program again for each text" in note
    examined = examine_for_cpu(open_program(program))
    assert examined is not None
    assert [note.startswith("forward keeps state") for note in examined.notes] == [True]


def test_one_whose_state_is_a_cache_is_told_nothing(tmp_path) -> None:
    examined = examine_for_cpu(open_program(artifact("peer-xnnpack-8da4w")))
    assert examined is not None and examined.notes == []
