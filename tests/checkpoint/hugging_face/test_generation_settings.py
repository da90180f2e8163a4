"""Notes name the options for the sampling settings in generation_config.json."""

import json
import shlex

import pytest
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_float_model
from quatrain.commands.chat import chat
from quatrain.commands.run import run
from quatrain.errors import InputError

DRAWN = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0}


def notes_of(tmp_path, settings) -> list[str]:
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]} | settings))
    return [note for note in open_float_model(folder).notes if "generation_config" in note]


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (DRAWN, "--temperature 0.6 --top-k 20 --top-p 0.95"),
        ({"do_sample": True}, "--temperature 1 --top-k 50"),  # transformers' own
        ({"temperature": 0.6, "repetition_penalty": 1.1}, "--repetition-penalty 1.1"),
        ({"stop_strings": ["User:", "a b"]}, "--stop User: --stop 'a b'"),
    ],
)
def test_options_that_do_the_same_are_given(tmp_path, settings, options):
    (note,) = notes_of(tmp_path, settings)
    assert note.endswith(f" as {options}.")
    for option in shlex.split(options):
        if option.startswith("--"):
            name = option.removeprefix("--").replace("-", "_")
            assert all(name in command.__annotations__ for command in (run, chat))


def test_sampling_settings_that_no_command_supports_are_named(tmp_path):
    settings = {"num_beams": 4, "suppress_tokens": [3], "min_length": 0, "bad_words_ids": None}
    (note,) = notes_of(tmp_path, settings)
    assert "has num_beams, suppress_tokens, which no command supports" in note


@pytest.mark.parametrize(
    "settings", [{}, {"do_sample": False, "temperature": 0.6, "top_k": 20}, {"top_p": "x"}]
)
def test_what_changes_nothing_is_not_said(tmp_path, settings):
    assert not notes_of(tmp_path, settings)


def test_a_file_that_is_not_an_object_is_named(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "generation_config.json").write_text("[]")
    with pytest.raises(InputError, match=r"generation_config\.json"):
        open_float_model(folder)
