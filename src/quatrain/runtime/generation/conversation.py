"""A conversation with a program; earlier turns stay in its KV cache."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.errors import InputError, require_at_least
from quatrain.program import Program, open_program
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.runtime.generation.generate import Generation
from quatrain.runtime.generation.health import Health
from quatrain.runtime.generation.kept_context import KeptContext
from quatrain.runtime.generation.sampling import GREEDY, Sampling
from quatrain.runtime.generation.stop_strings import check_stops
from quatrain.runtime.generation.text_generation import write_text
from quatrain.runtime.load import load_runner, require_tokens_to_logits
from quatrain.tokenizer import Tokenizer, chosen_tokenizer, end_ids
from quatrain.tokenizer.chat_prompt import ChatOptions, chat_prompt


@dataclass(frozen=True)
class Turn:
    """One answer of a conversation.

    Attributes:
        said: The user's message.
        text: The answer, up to a stop string.
        generation: The tokens and their speed; the prompt is the whole conversation before the
            answer.
        computed: How many tokens were computed for it; the others were in the KV cache.
        health: Measures of whether the text is garbled.
        stop_string: The stop string that ended the text, if there is one.
    """

    said: str
    text: str
    generation: Generation
    computed: int
    health: Health
    stop_string: str | None

    def as_dict(self) -> dict[str, Any]:
        """The turn as plain data, ready for JSON."""
        generation = self.generation
        return {
            "user": self.said,
            "text": self.text,
            "tokens": generation.tokens,
            "logits": generation.logits,
            "logprobs": generation.logprobs,
            "stopped": generation.stopped,
            "stop_string": self.stop_string,
            "prompt_tokens": generation.prompt,
            "computed_tokens": self.computed,
            "prefill_seconds": generation.prefill_seconds,
            "decode_tokens_per_second": generation.decode_tokens_per_second,
            "health": asdict(self.health),
        }


class Conversation:
    """A chat with a program; earlier turns stay in the KV cache.

    Attributes:
        device: What the program runs on, as text for people.
        context: How many tokens its KV cache holds.
        turns: The turns so far.
    """

    def __init__(
        self,
        program: Program | Path | str,
        *,
        options: ChatOptions | None = None,
        tokenizer: Path | str | None = None,
        max_new_tokens: int = 256,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
        device: str = "auto",
        emulate: str | None = None,
        arithmetic: Arithmetic = VULKAN_ARITHMETIC,
    ) -> None:
        """Load the program.

        Args:
            program: An opened program, or the path of a .pte file, from tokens to logits.
            options: Input of the chat template, for example a system message.
            tokenizer: A tokenizer.json; None means the one beside the program.
            max_new_tokens: The most tokens of an answer.
            sampling: As in `generate`; each turn uses another seed.
            stop: As in `generate_text`.
            device: As in `load_runner`.
            emulate: As in `load_runner`.
            arithmetic: As in `load_runner`.

        Raises:
            InputError: The model has no chat template, an argument is wrong, or as for
                `load_runner`.
        """
        check_stops(stop)
        require_at_least(1, "max_new_tokens", max_new_tokens)
        program = program if isinstance(program, Program) else open_program(program)
        _require_context(program)
        self._tokenizer = Tokenizer.load(chosen_tokenizer(tokenizer, program.path))
        self._options, self._sampling = options or ChatOptions(), sampling
        self._stop, self._max_new_tokens = tuple(stop), max_new_tokens
        _require_template(self._tokenizer, self._options)
        runner = load_runner(program, device, emulate, arithmetic)
        self.device, self.context = runner.device, program.context
        self.turns: list[Turn] = []
        self._vocabulary = runner.metadata.get("get_vocab_size")
        self._eos_ids = end_ids(self._tokenizer.eos_ids, runner.metadata)
        self._kept = KeptContext(runner)

    def _tokens(self, text: str, before: list[tuple[str, str]]) -> list[int]:
        prompt = chat_prompt(self._tokenizer, text, self._options, before)
        return self._tokenizer.encode(prompt, add_special_tokens=False)

    def say(self, text: str, on_text: Callable[[str], bool | None] | None = None) -> Turn:
        """Return the answer to `text`, and add both to the conversation.

        Args:
            text: The user's message.
            on_text: Called with each part of the answer as it is generated, also with an empty one
                if a token completes no character. If it returns True, the answer ends.

        Raises:
            InputError: The conversation with `text` does not fit into the context, or has tokens
                that the model does not know. The conversation is then unchanged.
        """
        tokens = self._tokens(text, [(turn.said, turn.text) for turn in self.turns])
        if len(tokens) > self.context:
            alone = len(self._tokens(text, []))
            advice = "begin a new one (/reset)" if alone <= self.context else "shorten it"
            raise InputError(
                f"the conversation has {len(tokens)} tokens with this, and the program's context "
                f"holds {self.context}; {advice}, or export with a larger --max-seq-len"
            )
        if self._vocabulary is not None:
            check_token_ids(tokens, self._vocabulary, self._tokenizer.model.id_to_token)
        written = write_text(
            self._kept, self._tokenizer, tokens, context=self.context,
            max_new_tokens=self._max_new_tokens, eos_ids=self._eos_ids,
            sampling=self._sampling.reseeded(len(self.turns)), stop=self._stop, on_text=on_text,
        )  # fmt: skip
        turn = Turn(
            text, written.text, written.generation, self._kept.computed, written.health,
            written.stop_string,
        )  # fmt: skip
        self.turns.append(turn)
        return turn

    def reset(self) -> None:
        """Forget all turns."""
        self.turns.clear()


def _require_context(program: Program) -> None:
    require_tokens_to_logits(program.path, program.metadata, "chat")
    if "get_max_context_len" not in program.metadata:
        raise InputError(
            f"{program.path}: lacks the constant method get_max_context_len, by which a chat "
            "knows when its context is full; export it anew, or take `quatrain run`"
        )


def _require_template(tokenizer: Tokenizer, options: ChatOptions) -> None:
    if not tokenizer.chat_templates:
        raise InputError(
            f"{tokenizer.source}: has no chat template, so this is not a chat model; "
            "`quatrain run` continues a text with it"
        )
    chat_prompt(tokenizer, "Hello", options)
