"""`quatrain diagnose`: the same figures from a checkpoint and from its program."""

from pathlib import Path

import pytest
import torch
from tests.support.command_line import invoked
from tests.support.models.tiny_programs import TEXT, Tiny

from quatrain.errors import InputError
from quatrain.verify.diagnose.diagnose import activation_statistics, diagnose_activations
from quatrain.verify.diagnose.heat_map import draw_heat_map


def test_a_program_shows_what_its_checkpoint_shows(tiny: Tiny) -> None:
    eager = {a.name: a for a in diagnose_activations(tiny.checkpoint, TEXT)}
    program = {a.name: a for a in diagnose_activations(tiny.programs["8da4w"], TEXT)}
    assert len(program) == 15 and program.keys() == eager.keys()
    for name, found in program.items():
        assert found.negative_zero_points == pytest.approx(eager[name].negative_zero_points)
        assert found.highest == pytest.approx(eager[name].highest, rel=1e-4)
        assert found.outlier == pytest.approx(eager[name].outlier, rel=1e-4)


def test_figures_of_a_known_activation() -> None:
    # Zero points: -128 - round(low / scale), negative where the range leans to the positive.
    x = torch.tensor([[0.0, 0.1, 0.2, 10.0], [-10.0, -0.2, 0.1, 0.0]])
    found = activation_statistics("linear", x)
    assert found.negative_zero_points == 0.5
    assert (found.lowest, found.highest) == (-10.0, 10.0)
    assert found.to_zero == 0
    coarse = activation_statistics("linear", torch.tensor([[0.001, -0.001, 0.002, 100.0]]))
    assert coarse.to_zero == 0.75 and coarse.outlier == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("kind", ["program", "checkpoint"])
def test_the_output_layer_is_never_quantized_and_the_verb_says_so(tiny: Tiny, kind: str) -> None:
    model = tiny.programs["8da4w"] if kind == "program" else tiny.checkpoint
    rounded = {a.name: a.quantized_in_prefill for a in diagnose_activations(model, TEXT)}
    assert [name for name, quantized in rounded.items() if not quantized] == ["output"]
    said = invoked(["diagnose", str(model)]).output
    assert "rounds them to int8 in prefill alone" in said and "and never in decode" in said
    assert "never rounded, not in prefill either, as they see one row: output" in said
    assert not any(a.quantized_in_prefill for a in diagnose_activations(model, "w5"))


def test_heat_map_is_a_png(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_heat_map(diagnose_activations(tiny.programs["8da4w"], TEXT), tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_its_own_text_is_cut_to_the_context(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.verify.diagnose.diagnose.DEFAULT_TEXT", "w1 " * 65)
    for model in (tiny.programs["8da4w"], tiny.checkpoint):
        assert len(diagnose_activations(model)) == 15


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("map.jpg", "", r"ends in \.png"),
        ("map.png", "matplotlib", "pip install matplotlib$"),
        ("no/map.png", "", "--heat-map .*there is no folder"),
    ],
)
def test_a_heat_map_that_cannot_be_drawn_is_refused_before_anything_runs(
    name: str, missing: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "quatrain.verify.diagnose.heat_map.find_spec",
        lambda package: None if package == missing else 1,
    )
    asked = ["diagnose", "no model", "--heat-map", str(tmp_path / name)]
    with pytest.raises(InputError, match=message):
        invoked(asked, catch_exceptions=False)


def test_bad_requests_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--text\) has no tokens"):
        diagnose_activations(tiny.programs["8da4w"], "")
    with pytest.raises(InputError, match=r"--text\) has 65 tokens.*64 in.*shorter one$"):
        diagnose_activations(tiny.programs["8da4w"], "w1 " * 65)
    with pytest.raises(InputError, match="nothing to draw"):
        pytest.importorskip("matplotlib")
        draw_heat_map([], tmp_path / "map.png")
