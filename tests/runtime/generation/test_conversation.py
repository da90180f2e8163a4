"""A chat computes what is new alone, says what a call from scratch says, and can be interrupted."""

import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from tests.support.models.tiny_programs import shared_tiny

from quatrain.commands._turns import interruptible
from quatrain.commands.chat import chat as chat_verb
from quatrain.commands.chat import lines_of_terminal
from quatrain.errors import InputError, Interrupted
from quatrain.program import open_program
from quatrain.runtime.generation.conversation import Conversation
from quatrain.runtime.generation.generate import Generation, generate
from quatrain.runtime.generation.sampling import Sampling
from quatrain.runtime.load import load_runner
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.chat_prompt import ChatOptions

TEMPLATE = (
    "{% for message in messages %}{{ {'system': 'w1 ', 'user': 'w2 ', 'assistant': 'w3 '}"
    "[message.role] }}{{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}w3 {% endif %}"
)


@pytest.fixture(scope="module")
def program(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program whose chat template marks who speaks."""
    tiny, folder = shared_tiny(shared), tmp_path_factory.mktemp("chat")
    shutil.copy(tiny.programs["weight-only"], folder / "m.pte")
    shutil.copy(tiny.checkpoint / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder / "m.pte"


def quatrain(*arguments: object, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quatrain", *map(str, arguments)]
    return subprocess.run(command, input=said, capture_output=True, text=True)


def test_each_turn_is_what_the_whole_prompt_gives_and_computes_what_is_new(program):
    chat = Conversation(
        program, options=ChatOptions(system="w9"), max_new_tokens=5, device="reference"
    )
    words = Tokenizer.load(program.with_name("tokenizer.json"))
    messages = [{"role": "system", "content": "w9"}]
    held = 0
    for text in ("w5 w17", "w40", "w22 w61 w33"):
        turn = chat.say(text)
        messages.append({"role": "user", "content": text})
        prompt = words.encode(words.apply_chat(messages), add_special_tokens=False)
        scratch = load_runner(program, "reference")
        alone = generate(scratch, prompt, context=64, max_new_tokens=5)
        assert turn.generation.prompt == prompt
        assert turn.generation.tokens == alone.tokens
        assert turn.generation.logits == pytest.approx(alone.logits, rel=1e-4)
        # The last token of an answer is no input of it.
        assert turn.computed == len(prompt) - held + 4
        held = len(prompt) + 4
        messages.append({"role": "assistant", "content": turn.text})
    assert [turn.said for turn in chat.turns] == ["w5 w17", "w40", "w22 w61 w33"]


def test_what_does_not_fit_is_refused_and_leaves_the_conversation_as_it_was(program):
    chat = Conversation(program, max_new_tokens=3, device="reference")
    first = chat.say("w5")
    for words, advice in ((70, "shorten it, or"), (60, "begin a new one")):
        with pytest.raises(InputError, match=rf"has \d\d tokens .* holds 64; {advice}"):
            chat.say(" ".join(["w7"] * words))
    assert chat.turns == [first]
    chat.reset()
    assert chat.say("w5").text == first.text


def test_an_answer_ends_where_its_listener_says_so_or_before_a_stop_string(program):
    chat = Conversation(program, max_new_tokens=9, device="reference")
    assert chat.say("w5", lambda part: True).generation.stopped == "interrupted"
    assert len(chat.turns[0].generation.tokens) == 1
    chat.reset()
    words = chat.say("w5").text.split()
    end = next(index for index, word in enumerate(words) if word != words[0])
    stopping = Conversation(program, max_new_tokens=9, stop=[words[end]], device="reference")
    turn = stopping.say("w5")
    assert (turn.text.split(), turn.stop_string) == (words[:end], words[end])
    assert turn.generation.stopped == "stop string"


def test_the_same_seed_gives_the_same_turns(program):
    chat = Conversation(program, sampling=Sampling(5.0, seed=3), device="reference")
    first = chat.say("w5").generation.tokens
    chat.reset()
    assert chat.say("w5").generation.tokens == first
    assert Sampling(1.0, seed=2**64 - 1).reseeded(1).seed == 0


def test_a_first_interrupt_ends_the_answer_and_a_second_one_the_chat():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_an_interrupted_chat_says_nothing_of_files(program, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("w5\n"))

    def press_twice(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Conversation, "say", press_twice)
    with pytest.raises(Interrupted, match=r"^interrupted$"):
        chat_verb(program, device="reference")


def test_turns_from_standard_input_and_from_a_file(program, tmp_path):
    said = "w5 w17\n\n/stats\n/reset\n/nonsense\nw5 w17\n/exit\nw9\n"
    given = quatrain("chat", program, "--max-new-tokens", 4, "--json", said=said)
    assert given.returncode == 0, given.stderr
    turns = [json.loads(line) for line in given.stdout.splitlines()]
    assert len(turns) == 2 and turns[0]["tokens"] == turns[1]["tokens"]
    # Of the answer's 4 tokens the last one is not computed.
    assert "[1 turn, 7 of 64 tokens; the last prompt 4 tokens, 4 of them new, " in given.stderr
    assert "/nonsense is no command" in given.stderr
    # As Windows' editor writes it; U+2028 is within a turn.
    (tmp_path / "turns.txt").write_bytes("\ufeffw5 w17\r\nw40\u2028w9\r\n".encode())
    read = quatrain("chat", program, "--file", tmp_path / "turns.txt", "--max-new-tokens", 4)
    assert read.returncode == 0, read.stderr
    shown = read.stdout.split("\n")
    assert shown[:3] == ["> w5 w17", turns[0]["text"], "> w40\u2028w9"]


def test_the_tokens_computed_are_counted_where_the_model_ends_the_text():
    ended = Generation([1, 2], [3, 4], [0.0] * 2, [0.0] * 2, "end of sequence", 0.5, 0.5)
    assert (ended.decode_steps, ended.decode_tokens_per_second) == (2, 4.0)
    assert replace(ended, stopped="length").decode_steps == 1
    assert replace(ended, tokens=[]).decode_steps == 0


def test_what_is_not_utf_8_is_refused(program):
    words = Tokenizer.load(program.with_name("tokenizer.json"))
    with pytest.raises(InputError, match=r"is not UTF-8: found '\\udcff' after 'w5 caf'; give it"):
        words.encode(b"w5 caf\xff".decode(errors="surrogateescape"))


def test_a_program_that_states_no_context_is_refused(program):
    opened = open_program(program)
    del opened.metadata["get_max_context_len"]
    with pytest.raises(InputError, match="lacks the constant method get_max_context_len"):
        Conversation(opened)


def test_an_interrupt_between_answer_and_prompt_is_for_neither(capsys):
    before = signal.getsignal(signal.SIGINT)
    with create_pipe_input() as pipe, create_app_session(input=pipe):
        lines = lines_of_terminal()
        pipe.send_text("hello\r")
        assert next(lines) == "hello"
        os.kill(os.getpid(), signal.SIGINT)
        pipe.send_text("gone\x03")
        pipe.send_text("\x04")
        assert list(lines) == []
    assert signal.getsignal(signal.SIGINT) == before


def test_a_turn_that_cannot_be_answered_ends_a_file(program, tmp_path):
    (tmp_path / "turns.txt").write_text("w5 " * 70 + "\nw40\n")
    with pytest.raises(InputError, match=r"the conversation has 7\d tokens with this"):
        chat_verb(program, file=tmp_path / "turns.txt", device="reference")


def test_on_a_terminal(program):
    ours, theirs = pty.openpty()
    environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "quatrain", "chat", str(program), "--max-new-tokens", "4"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    read_until(ours, b"ends the chat")
    os.write(ours, b"w5 w17\r")
    read_until(ours, b"stopped at --max-new-tokens")
    os.write(ours, b"w5 " * 70 + b"\r")
    read_until(ours, b"shorten it, or")  # and the chat goes on
    os.write(ours, b"/exit\r")
    assert process.wait(60) == 0
    os.close(ours)


def read_until(terminal: int, wanted: bytes) -> None:
    shown = b""
    while wanted not in shown:
        ready, _, _ = select.select([terminal], [], [], 120)
        assert ready, shown
        shown += os.read(terminal, 4096)


def test_a_model_without_a_chat_template_is_refused(program, tmp_path):
    for name in ("m.pte", "tokenizer.json"):
        shutil.copy(program.with_name(name), tmp_path)
    with pytest.raises(InputError, match="has no chat template, so this is not a chat model"):
        Conversation(tmp_path / "m.pte")
