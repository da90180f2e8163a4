import pytest

from quatrain.short_lists import ranges


@pytest.mark.parametrize(
    "numbers, text",
    [
        ([], ""),
        ([0, 1, 2, 3, 5], "0-3, 5"),
        ([0, 0, 1], "0-1"),  # experts: several linears of one layer
        ([1, 1, 3, 3, 4], "1, 3-4"),
    ],
)
def test_ranges_of_numbers_that_may_be_equal(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text
