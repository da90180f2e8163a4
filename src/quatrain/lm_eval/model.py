"""Programs, int4 checkpoints and floating-point models as a model of lm-eval.

lm-eval is EleutherAI's Language Model Evaluation Harness, the package `lm_eval`: an extra, so
that types are checked without it.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
from lm_eval.models.utils import (  # pyright: ignore[reportMissingImports]
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
    get_rolling_token_windows,
    make_disjoint_window,
)
from tqdm import tqdm

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.lm_eval.runner import open_lm_eval_runner
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.sampling import Sampling

_LOG = logging.getLogger(__name__)
_USUAL_GENERATED = 256  # tokens, where a task does not say: as lm-eval's own models have it


@register_model("quatrain")
class QuatrainLM(TemplateLM):
    """`--model quatrain` of lm-eval. Scores a text by reading it as a prompt (8da4w quantizes
    activations there), and generates as the phone decodes.

    Args:
        path: A program, an int4 checkpoint or a model in floating point.
        scheme: "8da4w" (None) or "weight-only", for a checkpoint.
        runtime: For a program, as `device` of `load_runner`; None is "auto".
        tokenizer: A tokenizer.json; None is the model's own.
        max_length: Tokens of a text at most; None is the model's context.
        device, batch_size, max_batch_size: lm-eval's own. They change nothing: eager models are
            computed on the CPU, as many texts side by side as their length suggests.

    Raises:
        InputError: If the model or an argument cannot be used.
    """

    def __init__(
        self,
        path: Path | str,
        scheme: str | None = None,
        runtime: str | None = None,
        tokenizer: Path | str | None = None,
        max_length: int | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if scheme not in (None, *Scheme):
            raise InputError(f"scheme={scheme}: expected one of {', '.join(Scheme)}")
        wanted = None if scheme is None else Scheme(scheme)
        evaluated, self.runner = open_lm_eval_runner(Path(path), wanted, runtime)
        self.words = evaluated.read_tokenizer(tokenizer)
        self.max_length = min(max_length or evaluated.context, evaluated.context)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        if not self.words.eos_ids:
            raise InputError(
                f"{self.words.source}: names no token that ends a text; say it in the "
                "tokenizer_config.json beside it, as eos_token"
            )
        named = self.words.model.token_to_id(self.words.eos_token or "")
        return self.words.eos_ids[0] if named is None else named

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: the one that begins a text, or else the one that
        ends it."""
        return self.eot_token_id if self.words.bos_id is None else self.words.bos_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of `string`; None begins it as the model was trained, but not twice."""
        if add_special_tokens is None:
            begin = self.words.bos_token
            add_special_tokens = not (begin and string.startswith(begin))
        return self.words.encode(string, add_special_tokens)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in pieces as long as the context."""
        pieces: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for index, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            for context, continuation in map(make_disjoint_window, windows):
                pieces.append((None, context, continuation))
                owners.append(index)
        totals = [0.0] * len(requests)
        scores = self._loglikelihood_tokens(pieces, disable_tqdm=disable_tqdm)
        for owner, (score, _) in zip(owners, scores, strict=True):
            totals[owner] += score
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        of_text: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (_, context, continuation) in enumerate(requests):
            of_text[self._read_ids(context, continuation)].append(index)
        texts = sorted(of_text, key=len, reverse=True)  # those of a length beside each other
        scored = [max(len(requests[index][2]) for index in of_text[text]) for text in texts]
        found: dict[int, tuple[float, bool]] = {}
        quiet = kwargs.get("disable_tqdm", False)
        with tqdm(total=len(requests), disable=quiet, desc="loglikelihood") as bar:
            for text, logits in zip(texts, self.runner.logits(texts, scored), strict=True):
                logs = torch.log_softmax(logits, -1)
                for index in of_text[text]:
                    key, _, continuation = requests[index]
                    found[index] = _score(logs[-len(continuation) :], continuation)
                    if key is not None:
                        self.cache_hook.add_partial("loglikelihood", key, found[index])
                    bar.update()
        return [found[index] for index in range(len(requests))]

    def _read_ids(self, context: list[int], continuation: list[int]) -> tuple[int, ...]:
        """What the model reads, the last `max_length` tokens; the last one is only predicted."""
        if not 0 < len(continuation) <= self.max_length:
            raise InputError(
                f"a task asks for the likelihood of {len(continuation)} tokens, expected 1 to "
                f"{self.max_length} (max_length, the model's context)"
            )
        ids = [*context, *continuation]
        if len(ids) > self.max_length + 1:
            _LOG.warning("%d tokens are cut to the last %d", len(ids), self.max_length + 1)
        return tuple(ids[-(self.max_length + 1) : -1])

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to what ends it."""
        found = []
        for request in tqdm(requests, disable=disable_tqdm, desc="generate_until"):
            context, said = request.args
            found.append(self._generate(context, normalize_gen_kwargs(said, _USUAL_GENERATED)))
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
        return found

    def _generate(self, context: str, said: Any) -> str:
        until, room = handle_stop_sequences(said.pop("until", None), None), said.pop("max_gen_toks")
        sampled = said.pop("do_sample", False)
        temperature = said.pop("temperature", 1.0 if sampled else 0.0)
        if said:
            raise InputError(
                f"a task asks to generate with {', '.join(sorted(said))}, expected do_sample, "
                "temperature, until and max_gen_toks; leave it out with --gen_kwargs or in the task"
            )
        if room >= self.max_length:
            raise InputError(
                f"a task asks for {room} tokens (max_gen_toks), expected fewer than the "
                f"{self.max_length} of the model's context; give --gen_kwargs max_gen_toks=N"
            )
        prompt = self.tok_encode(context)[-(self.max_length - room) :]
        text = ""
        stream = self.words.stream()

        def ends(token: int) -> bool:
            nonlocal text
            text += stream.push(token)
            return any(term and term in text for term in until)

        generate(
            self.runner.decoder(), prompt, context=self.max_length, max_new_tokens=room,
            eos_ids=self.words.eos_ids, sampling=Sampling(temperature), on_token=ends,
        )  # fmt: skip
        return postprocess_generated_text(text + stream.finish(), until, None)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt for a conversation; without `add_generation_prompt` its last message, the
        assistant's, is one to go on with."""
        begun = "" if add_generation_prompt else chat_history[-1]["content"]
        messages = chat_history if add_generation_prompt else chat_history[:-1]
        return self.words.apply_chat(messages) + begun

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template itself, for lm-eval's report; there is one."""
        return self.words.chat_template if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """What the tokenizer was read from, for lm-eval's cache of requests."""
        return self.words.source


def _score(logs: torch.Tensor, ids: Sequence[int]) -> tuple[float, bool]:
    """The log-probability of `ids` by `logs` [n, V], and whether each is the most likely."""
    wanted = torch.tensor(ids)
    greedy = bool((logs.argmax(-1) == wanted).all())
    return float(logs[torch.arange(len(ids)), wanted].sum()), greedy
