"""What a program states of itself, and the tokenizer beside it, against the checkpoint."""

from collections.abc import Iterable, Sequence

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.program import Program
from quatrain.program.methods import CALL
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.end_tokens import token_ids
from quatrain.tokenizer.files import tokenizer_in
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.program_info import is_ours


def compare_stated(
    program: Program, checkpoint: Checkpoint, tokenizer: Tokenizer, texts: Sequence[str] | None
) -> list[PackedCheck]:
    """Compare what `program`, if it is one of ours, states with `checkpoint`, and the `tokenizer`
    beside it, unless there are no `texts` for that, with the checkpoint's."""
    checks = _stated(program, checkpoint, tokenizer) if is_ours(program) else []
    source = checkpoint.source
    own = tokenizer_in(source if source.is_dir() else source.parent)
    if own is not None and texts is not None:
        ids = range(checkpoint.config.vocab_size)
        checks.append(_same_tokenizer(tokenizer, Tokenizer.load(own), texts, ids))
    return checks


def _stated(program: Program, checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[PackedCheck]:
    """Which tokens begin and end a text, those of the `tokenizer` among them, and how long a call
    may be, which the program's inputs say too."""
    stated, params = program.stated, checkpoint.params
    ends, meant = token_ids(stated.get("get_eos_ids")), token_ids(params.get("eos_idx"))
    wrong = [i for i in meant if i not in ends]
    wrong += [i for i in ends if i not in (*meant, *tokenizer.eos_ids)]
    known = f"are {ends}, the checkpoint's are {meant}" if wrong else None
    checks = [PackedCheck("get_eos_ids", known)]
    begin, at_first = stated.get("get_bos_id"), params.get("bos_idx")
    if None not in (begin, at_first):
        different = f"is {begin}, the checkpoint's is {at_first}"
        checks.append(PackedCheck("get_bos_id", None if begin == at_first else different))
    takes = [list(value.sizes) for value in program.methods["forward"].inputs]
    longest = max((sizes[1] for sizes in takes if len(sizes) > 1), default=stated.get(CALL))
    if CALL in stated:
        different = f"is {stated[CALL]}, and a call takes {longest} tokens"
        checks.append(PackedCheck(CALL, None if stated[CALL] == longest else different))
    return checks


def _same_tokenizer(
    tokenizer: Tokenizer, checkpoints: Tokenizer, texts: Sequence[str], ids: Iterable[int]
) -> PackedCheck:
    """The words that both have at those `ids`, and the tokens of `texts`."""
    pairs = ((i, tokenizer.model.id_to_token(i), checkpoints.model.id_to_token(i)) for i in ids)
    first = next((pair for pair in pairs if None not in pair and pair[1] != pair[2]), None)
    problem = None
    if first is not None:
        problem = f"has {first[1]!r} as token {first[0]}, the checkpoint's has {first[2]!r}"
    elif any(tokenizer.encode(text) != checkpoints.encode(text) for text in texts):
        problem = "gives the prompts other tokens than the checkpoint's"
    return PackedCheck("tokenizer", problem)
