"""A tokenizer in the form that ExecuTorch's C++ tokenizer reads as it is meant.

Tried with pytorch_tokenizers 1.5, which reads these otherwise, most without a word:

| a tokenizer.json says | it | so what is written |
|---|---|---|
| NFC: compose characters | takes accents away | says it in tokenizer_config.json, for us |
| Split by a pattern, isolated | drops what lies between its words | takes that as words, too |
| Metaspace, for spaces | does not load it | has its steps, and says it, for us |
| Split by a pattern, removed | keeps its words alone | is of what lies between them |
| a Sequence of nothing | does not load it | leaves it out |
| added tokens that are runs of `▁` | finds no run of spaces | are pieces alone, added for us |
"""

import json
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers

from quatrain.tokenizer.gguf.sentencepiece import SPACE, space_steps
from quatrain.tokenizer.named_tokens import finding_as_written

METASPACE = "metaspace"  # in tokenizer_config.json, as the one below
# With which transformers 5 saves what it made of a tokenizer.model: Metaspace puts no space before
# a text that begins with one.
_FIRST_DOUBLED = [
    {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    {"type": "Replace", "pattern": {"Regex": rf"\A{SPACE}"}, "content": 2 * SPACE},
]
NORMALIZATION = "unicode_normalization"  # in tokenizer_config.json
_RUNS = "added_runs_of_spaces"  # in tokenizer_config.json
_NFC = "NFC"
# A character or two of every kind, and the places in which a pattern may treat them otherwise.
_CHARACTERS = (
    "aAé1٣²½Ⅷ_-(»«)!+$^~|`'\" \t\n\r\u00a0\u3000\u200d\u0301\u0903\u00ad\u0378\ue000\U0001f642"
    "\u01c5\u02b0\u6f22\u0e01\u30a2\uac00\u309b\u30fb\u2014\u2026"
)
_PLACES = ("{0}", "{0}a", "a{0}", " {0}", "{0} ", "{0}1", "1{0}", "{0}{0}a", "{0}{0}1", "\n{0}")


def without_composing(model: tokenizers.Tokenizer, config: dict[str, Any]) -> bool:
    """Take NFC out of what `model` does to a text and state it in `config`; returns whether it was
    there."""
    steps = _steps(model)
    kept = [step for step in steps if not isinstance(step, normalizers.NFC)]
    if len(kept) == len(steps):
        return False
    model.normalizer = _sequence(kept)
    config[NORMALIZATION] = _NFC
    return True


def with_composing(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Put NFC back into `model` where `config` states it."""
    steps = _steps(model)
    if config.get(NORMALIZATION) == _NFC and not any(
        isinstance(step, normalizers.NFC) for step in steps
    ):
        model.normalizer = _sequence([normalizers.NFC(), *steps])


def without_metaspace(
    model: tokenizers.Tokenizer, config: dict[str, Any]
) -> tokenizers.Tokenizer | None:
    """`model` with steps that a phone reads in place of its Metaspace, which `config` states from
    here on; None where it has none that this may be done to.

    The steps put a space before the text behind each special token, as Metaspace's "always" does.
    """
    metaspace = _metaspace_of(model)
    if metaspace is None:
        return None
    steps = [json.loads(step.__getstate__()) for step in _steps(model)]
    doubled = steps == _FIRST_DOUBLED
    if doubled and metaspace.prepend_scheme != "always":
        return None  # a phone finds \A again behind what it has replaced
    if any(token.normalized for token in model.get_added_tokens_decoder().values()):
        if steps:
            return None  # those to come would change what is looked for
        model = finding_as_written(model)
    if doubled:  # what follows is the same, wherever a text begins
        model.normalizer = _sequence(space_steps(prefix=True, leading_is_prefix=False))
    else:
        config[METASPACE] = {"prepend_scheme": metaspace.prepend_scheme, "split": metaspace.split}
        model.normalizer = _sequence([*_steps(model), *_spaces(config)])
    cut = pre_tokenizers.Split(Regex(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+"), "isolated")
    model.pre_tokenizer = cut if metaspace.split else None
    if isinstance(model.decoder, decoders.Metaspace):
        prefix = metaspace.prepend_scheme != "never"
        stripped = [decoders.Strip(" ", 1, 0)] if prefix else []
        model.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.Fuse(), *stripped]
        )
    return model


def _metaspace_of(model: tokenizers.Tokenizer) -> pre_tokenizers.Metaspace | None:
    """Its Metaspace for spaces, where nothing else cuts a text."""
    cutter = model.pre_tokenizer
    if isinstance(cutter, pre_tokenizers.Sequence) and len(_states_in(cutter)) == 1:
        cutter = cutter[0]
    if not isinstance(cutter, pre_tokenizers.Metaspace) or cutter.replacement != SPACE:
        return None
    return cutter


def stated_metaspace(config: dict[str, Any]) -> dict[str, Any] | None:
    """The Metaspace that a tokenizer_config.json's `config` states, None where it states none as
    it is written here."""
    stated = config.get(METASPACE)
    if not isinstance(stated, dict) or stated.keys() != {"prepend_scheme", "split"}:
        return None
    known = stated["prepend_scheme"] in ("always", "first", "never")
    return stated if known and isinstance(stated["split"], bool) else None


def with_metaspace(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Put the Metaspace back into `model` that `config` states."""
    stated = stated_metaspace(config)
    if stated is None or isinstance(model.pre_tokenizer, pre_tokenizers.Metaspace):
        return
    steps = _steps(model)
    model.normalizer = _sequence(steps[: len(steps) - len(_spaces(config))])
    model.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, **stated)


def _spaces(config: dict[str, Any]) -> list[Any]:
    prefix = config[METASPACE]["prepend_scheme"] != "never"
    return space_steps(prefix, leading_is_prefix=True)


def without_empty_steps(model: tokenizers.Tokenizer) -> bool:
    """Take out of `model` each sequence that has no steps; returns whether there was one."""
    no_changes = model.normalizer is not None and not _steps(model)
    if no_changes:
        model.normalizer = None
    cutter = model.pre_tokenizer
    no_cuts = isinstance(cutter, pre_tokenizers.Sequence) and not _states_in(cutter)
    if no_cuts:
        model.pre_tokenizer = None
    return no_changes or no_cuts


def without_added_runs(
    model: tokenizers.Tokenizer, config: dict[str, Any]
) -> tokenizers.Tokenizer | None:
    """`model` with its runs of spaces among the pieces of its vocabulary alone, and stated in
    `config`; None where none of them is an added token too (as Gemma's are).

    Merges give them to a text all the same: an added token is looked for before spaces become `▁`,
    and so found where a text has this character itself.
    """
    if model.normalizer is None or SPACE not in model.normalizer.normalize_str("a b"):
        return None
    runs = [
        token.content
        for token in model.get_added_tokens_decoder().values()
        if _is_run(model, token.content) and not token.special and not token.normalized
    ]
    if not runs:
        return None
    config[_RUNS] = runs
    state = json.loads(model.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] not in runs
    ]
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def with_added_runs(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Make added tokens again of the runs of spaces that `config` states."""
    stated = config.get(_RUNS)
    for run in stated if isinstance(stated, list) else []:
        if isinstance(run, str) and _is_run(model, run):
            model.add_tokens([tokenizers.AddedToken(run, normalized=False)])


def _is_run(model: tokenizers.Tokenizer, token: str) -> bool:
    return set(token) == {SPACE} and model.model.token_to_id(token) is not None


def with_whole_splits(model: tokenizers.Tokenizer) -> bool:
    """Have the patterns by which `model` splits a text match all of it, which changes no word;
    returns whether one did not."""
    cutter = model.pre_tokenizer
    if isinstance(cutter, pre_tokenizers.Split):
        whole = _whole_split(cutter)
        if whole is not None:
            model.pre_tokenizer = whole
        return whole is not None
    if not isinstance(cutter, pre_tokenizers.Sequence):
        return False
    changed = False
    for index, step in enumerate(_states_in(cutter)):
        whole = _whole_split(cutter[index]) if step["type"] == "Split" else None
        if whole is not None:
            cutter[index] = whole
            changed = True
    return changed


def _states_in(sequence: pre_tokenizers.Sequence) -> list[dict[str, Any]]:
    """The steps of `sequence` as a file has them."""
    return json.loads(sequence.__getstate__())["pretokenizers"]


def _whole_split(split: Any) -> pre_tokenizers.Split | None:
    """`split` with a pattern that matches all of a text; None where its own does, or is a text."""
    state = json.loads(split.__getstate__())
    pattern, behavior = state["pattern"].get("Regex"), state["behavior"]
    if pattern is None:
        return None
    between = rf"(?:(?!{pattern})[\s\S])+"
    if behavior == "Removed" and not state["invert"]:
        return pre_tokenizers.Split(Regex(between), "removed", invert=True)
    if behavior == "Isolated" and not _matches_all(pattern):
        return pre_tokenizers.Split(Regex(f"{pattern}|{between}"), "isolated")
    return None


def _matches_all(pattern: str) -> bool:
    """Whether nothing is left of any text where the words of `pattern` are taken out."""
    remover = pre_tokenizers.Split(Regex(pattern), "removed")
    return not any(
        remover.pre_tokenize_str(place.format(character))
        for character in _CHARACTERS
        for place in _PLACES
    )


def _steps(model: tokenizers.Tokenizer) -> list[Any]:
    whole = model.normalizer
    if isinstance(whole, normalizers.Sequence):
        return [whole[index] for index in range(len(whole))]
    return [] if whole is None else [whole]


def _sequence(steps: list[Any]) -> Any:
    if len(steps) == 1:
        return steps[0]
    return normalizers.Sequence(steps) if steps else None
