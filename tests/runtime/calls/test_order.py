"""Programs that keep the keys of their windows alone: calls follow on each other."""

import pytest
import torch
from tests.support.devices import RUNNERS
from tests.support.paths import CONFORMANCE

from quatrain.errors import InputError
from quatrain.runtime.generation.kept_context import KeptContext

TEXT = list(range(20, 50))


@pytest.fixture(params=RUNNERS)
def runner(request):
    return request.param(CONFORMANCE / "windows_d.pte")


def _forward(runner, tokens, start):
    return runner.forward(torch.tensor([tokens]), torch.tensor([start]))


def test_a_call_that_goes_back_is_refused(runner):
    _forward(runner, TEXT[:9], 0)
    _forward(runner, TEXT[9:10], 9)
    with pytest.raises(InputError, match=r"at position 4 after 10 tokens.* position 10 or begins"):
        _forward(runner, TEXT[4:6], 4)
    _forward(runner, TEXT[10:12], 10)


def test_after_a_reset_a_text_begins(runner):
    _forward(runner, TEXT[:9], 0)
    runner.reset()
    with pytest.raises(
        InputError, match=r"at position 9 after 0 tokens.*delta rules\).* each call begins a text"
    ):
        _forward(runner, TEXT[9:10], 9)


def test_a_call_that_is_refused_does_not_count(runner):
    _forward(runner, TEXT[:9], 0)
    with pytest.raises(InputError, match="99999"):
        _forward(runner, [99999], 9)
    _forward(runner, TEXT[9:10], 9)


def test_a_text_may_begin_without_a_reset(runner):
    first = _forward(runner, TEXT[:20], 0)
    assert _forward(runner, TEXT[:20], 0).equal(first)


def test_a_cached_context_with_another_continuation_is_computed_again(runner):
    kept = KeptContext(runner)
    _forward(kept, TEXT, 0)
    kept.reset()
    _forward(kept, [*TEXT, 3, 4], 0)
    assert kept.computed == 2
    kept.reset()
    other = [*TEXT[:25], 9, 9]
    found = _forward(kept, other, 0)
    assert kept.computed == len(other)
    runner.reset()
    assert found.equal(_forward(runner, other, 0))
