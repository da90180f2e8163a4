"""The turns of a chat: messages to answer, and commands such as /reset."""

import json as json_module
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quatrain.errors import InputError
from quatrain.json_files import finite

if TYPE_CHECKING:
    from quatrain.runtime.generation.conversation import Conversation, Turn

_COMMANDS = {
    "/reset": "clear the conversation",
    "/stats": "the context, and how fast the last answer came",
    "/help": "this list",
    "/exit": "leave, as Ctrl-D does",
}

# What is said of an answer that the model did not end.
_CUT_SHORT = {
    "length": "stopped at --max-new-tokens",
    "context": "stopped: the context is full; /reset begins a new conversation",
    "interrupted": "interrupted",
}


def converse(
    conversation: "Conversation",
    lines: Iterable[str],
    json: bool,
    echo: bool = False,
    forgiving: bool = False,
) -> None:
    """Answer each of `lines`. `echo`: show it before; `forgiving`: go on after a turn that could
    not be answered."""
    for line in lines:
        text = line.strip()
        if text == "/exit":
            return
        if re.fullmatch(r"/\w+", text):
            _command(text, conversation)
        elif text:
            if echo:
                print(f"> {text}")
            try:
                _answer(conversation, text, json)
            except InputError as error:
                if not forgiving:
                    raise
                print(f"error: {error}", file=sys.stderr)


def _answer(conversation: "Conversation", text: str, json: bool) -> None:
    with interruptible() as interrupted:

        def show(part: str) -> bool:
            if not json:
                print(part, end="", flush=True)
            return interrupted()

        turn = conversation.say(text, show)
    if json:
        print(json_module.dumps(finite(turn.as_dict())), flush=True)
        return
    print()
    why = _CUT_SHORT.get(turn.generation.stopped)
    if why is not None:
        print(f"[{why}]", file=sys.stderr)
    for problem in turn.health.problems:
        print(f"warning: {problem}", file=sys.stderr)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """While it lasts a first Ctrl-C makes what it gives true; a second one is an interrupt."""
    pressed = False

    def press(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _command(name: str, conversation: "Conversation") -> None:
    if name == "/reset":
        conversation.reset()
        print("[a new conversation]", file=sys.stderr)
    elif name == "/stats":
        print(_stats(conversation), file=sys.stderr)
    elif name != "/help":
        print(f"error: {name} is no command; /help lists them", file=sys.stderr)
    else:
        for command, meaning in _COMMANDS.items():
            print(f"  {command:<8}{meaning}", file=sys.stderr)


def _stats(conversation: "Conversation") -> str:
    if not conversation.turns:
        return f"[no turns yet, context {conversation.context} tokens]"
    last: Turn = conversation.turns[-1]
    generation = last.generation
    held = len(generation.prompt) + generation.decode_steps
    new = last.computed - generation.decode_steps
    count = len(conversation.turns)
    return (
        f"[{count} {'turn' if count == 1 else 'turns'}, {held} of {conversation.context} tokens; "
        f"the last prompt {len(generation.prompt)} tokens, {new} of them new, in "
        f"{generation.prefill_seconds:.2f} s; decode "
        f"{generation.decode_tokens_per_second:.1f} tokens/s]"
    )
