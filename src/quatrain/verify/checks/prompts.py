"""The texts on which logits are compared."""

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.pruned_vocabulary import known_rows
from quatrain.errors import InputError
from quatrain.runtime.calls.token_ids import check_token_ids
from quatrain.runtime.generation.generate import check_prompt
from quatrain.tokenizer import Tokenizer

PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "To install a package on Debian, open a terminal and type",
)


def encoded_prompts(
    prompts: tuple[str, ...],
    tokenizer: Tokenizer,
    config: BackboneConfig,
    context: int,
    new_tokens: int,
) -> list[list[int]]:
    """The rows of the embedding for each prompt; of `PROMPTS` as many as fit.

    Raises `InputError` if one is too short, or the program's `context` has no room for it and
    `new_tokens` behind it.
    """
    room = context - new_tokens
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    for tokens in encoded:
        check_token_ids(tokens, config.vocab_size, tokenizer.model.id_to_token)
    encoded = [known_rows(config, tokens) for tokens in encoded]
    if room < 2:
        raise InputError(
            f"--new-tokens leaves no room for a prompt in the program's context of {context} "
            "tokens; ask for fewer"
        )
    if prompts == PROMPTS:
        encoded = [tokens[:room] for tokens in encoded]
    for tokens in encoded:
        if len(tokens) > room:
            raise InputError(
                f"the prompt has {len(tokens)} tokens, and the context of {context} has room for "
                f"{room} before the {new_tokens} of --new-tokens; shorten it, ask for fewer, or "
                "export with a larger --max-seq-len"
            )
        check_prompt(tokens, context)
        if len(tokens) < 2:
            raise InputError("a prompt of one token has no prefill to verify; give a longer one")
    return encoded
