"""What ends a text, from whatever states it."""

from quatrain.tokenizer.end_tokens import end_ids, eos_idx_of, token_ids


def test_a_program_of_one_end_token_states_it_as_a_number() -> None:
    assert end_ids([], {"get_eos_ids": 2}) == [2]
    assert end_ids([], {"get_eos_ids": [2, 7]}) == [2, 7]
    assert end_ids([], {}) == []


def test_a_program_ends_here_where_it_ends_on_a_phone() -> None:
    """Which sees what the program states, and no tokenizer_config.json."""
    assert end_ids([5], {"get_eos_ids": [2, 7]}) == [2, 7]
    assert end_ids([5], {}) == [5]


def test_params_state_one_as_a_number_and_several_as_a_list() -> None:
    for ids in ([2], [2, 0]):
        assert token_ids(eos_idx_of(ids)) == ids
    assert eos_idx_of([2]) == 2
    assert token_ids(None) == token_ids([]) == []


def test_values_that_are_not_ids_are_left_out() -> None:
    assert token_ids("</s>") == token_ids({"content": "</s>"}) == token_ids([["2"], 1.5]) == []
    assert token_ids([2, "</s>", 7.0]) == [2, 7]
