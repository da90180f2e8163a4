"""Compares a program's metadata, and the tokenizer beside it, with the checkpoint."""

from collections.abc import Iterable, Sequence

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.errors import UnknownTokenizer
from quatrain.program import Program
from quatrain.program.methods import CALL
from quatrain.program.plan.method_memory import method_memory_problems
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.copies import with_end_ids
from quatrain.tokenizer.end_tokens import token_ids
from quatrain.tokenizer.files import CONFIG, beside, tokenizer_in
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.program_info import is_quatrains

_KEEPS = "quatrain_keeps_last_inputs"


def compare_metadata(
    program: Program,
    checkpoint: Checkpoint,
    rewinds: bool,
    tokenizer: Tokenizer,
    texts: Sequence[str] | None,
) -> tuple[list[PackedCheck], list[str]]:
    """Compare the metadata of `program`, if Quatrain exported it, with `checkpoint`, and the
    `tokenizer` with the checkpoint's. `rewinds`: whether the model may go back in its context.
    `texts`: on which tokenizers are compared; None skips that.

    The memory plan of the program's values is compared with how its instructions use them.

    Returns the checks, and phrases about what was not compared: the tokenizer, if the checkpoint's
    own is of an unsupported kind, such as Llama 3's, and another form was given.
    """
    checks = _stated(program, checkpoint, rewinds, tokenizer) if is_quatrains(program) else []
    if not program.graphs:  # for a Vulkan program this is one of the defects
        checks += [PackedCheck("memory", one) for one in method_memory_problems(program)]
    files = checkpoint.tokenizer_files
    own = tokenizer_in(files[0].parent) if files else None
    if own is None or texts is None:
        return checks, []
    try:
        checkpoints = Tokenizer.load(own)
    except UnknownTokenizer:
        return checks, [f"the tokenizer: the checkpoint's own, {own}, is of a kind not read here"]
    ids = range(checkpoint.config.vocab_size)
    problem = _tokenizer_problem(tokenizer, checkpoints, texts, ids)
    return [*checks, PackedCheck("tokenizer", problem)], []


def _stated(
    program: Program, checkpoint: Checkpoint, rewinds: bool, tokenizer: Tokenizer
) -> list[PackedCheck]:
    """Compare the tokens that begin and end a text (with those of `tokenizer` and of the files
    beside the program), what a call keeps of a text, and the longest call, which the program's
    inputs state too."""
    stated, params = program.stated, checkpoint.params
    ends, meant = token_ids(stated.get("get_eos_ids")), token_ids(params.get("eos_idx"))
    wrong = [i for i in meant if i not in ends]
    written = beside(program.path, CONFIG)
    brought = with_end_ids({}, [written] if written.is_file() else []).get("eos_idx")
    wrong += [i for i in ends if i not in (*meant, *tokenizer.eos_ids, *token_ids(brought))]
    known = f"are {ends}, the checkpoint's are {meant}" if wrong else None
    checks = [PackedCheck("get_eos_ids", known)]
    begin, at_first = stated.get("get_bos_id"), params.get("bos_idx")
    if None not in (begin, at_first):
        different = f"is {begin}, the checkpoint's is {at_first}"
        checks.append(PackedCheck("get_bos_id", None if begin == at_first else different))
    # A program with windows in ring buffers states it too.
    always = ("use_kv_cache", True), ("enable_dynamic_shape", True)
    for name, is_meant in ((_KEEPS, not rewinds), *always):
        if is_meant:
            checks.append(PackedCheck(name, None if stated.get(name) else "is not stated"))
    inputs = program.methods["forward"].inputs
    takes = [list(value.sizes or ()) for value in inputs if value.table == "Tensor"]
    longest = max((sizes[1] for sizes in takes if len(sizes) > 1), default=stated.get(CALL))
    if CALL in stated:
        different = f"is {stated[CALL]}, and a call takes {longest} tokens"
        checks.append(PackedCheck(CALL, None if stated[CALL] == longest else different))
    return checks


def _tokenizer_problem(
    tokenizer: Tokenizer, checkpoints: Tokenizer, texts: Sequence[str], ids: Iterable[int]
) -> str | None:
    """How `tokenizer` differs from `checkpoints`, the checkpoint's: in the tokens of `texts`, and,
    if most words are equal, so that both have the same form, in the words at these `ids`."""
    named = ((i, tokenizer.model.id_to_token(i), checkpoints.model.id_to_token(i)) for i in ids)
    pairs = [pair for pair in named if None not in pair]
    others = [pair for pair in pairs if pair[1] != pair[2]]
    what = None
    if others and 2 * len(others) < len(pairs):
        index, found, expected = others[0]
        what = f"has {found!r} as token {index}, the checkpoint's has {expected!r}"
    elif any(tokenizer.encode(text) != checkpoints.encode(text) for text in texts):
        what = "gives the prompts other tokens than the checkpoint's"
    return what and f"{what}; give the right one as --tokenizer"
