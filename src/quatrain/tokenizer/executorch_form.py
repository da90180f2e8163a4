"""Rewrites a tokenizer into a form that ExecuTorch's C++ tokenizer reads correctly.

Checked with pytorch_tokenizers 1.5, which misreads these parts, most of them silently:

| tokenizer.json has | ExecuTorch's tokenizer | so Quatrain writes |
|---|---|---|
| NFC normalization | removes accents | no NFC; tokenizer_config.json has it for Quatrain |
| `Metaspace` | does not load it | equivalent steps; tokenizer_config.json has it for Quatrain |
| an empty `Sequence` | does not load it | nothing |
| `BertProcessing`, `RobertaProcessing` | does not load it | an equivalent `TemplateProcessing` |
| runs of `▁` as added tokens | finds no run of spaces | vocabulary pieces, no added tokens |
"""

import json
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

from quatrain.tokenizer.executorch_splits import states_in
from quatrain.tokenizer.gguf.sentencepiece import SPACE, space_steps
from quatrain.tokenizer.named_tokens import finding_as_written

METASPACE = "metaspace"  # key in tokenizer_config.json
# How transformers 5 saves a converted tokenizer.model: its Metaspace adds no space to a text that
# begins with one.
_FIRST_DOUBLED = [
    {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    {"type": "Replace", "pattern": {"Regex": rf"\A{SPACE}"}, "content": 2 * SPACE},
]
NORMALIZATION = "unicode_normalization"  # key in tokenizer_config.json
_RUNS = "added_runs_of_spaces"  # key in tokenizer_config.json
_NFC = "NFC"


def move_nfc_to_config(model: tokenizers.Tokenizer, config: dict[str, Any]) -> bool:
    """Remove NFC from the normalizer of `model` and state it in `config`; returns whether it was
    there."""
    steps = _steps(model)
    kept = [step for step in steps if not isinstance(step, normalizers.NFC)]
    if len(kept) == len(steps):
        return False
    model.normalizer = _sequence(kept)
    config[NORMALIZATION] = _NFC
    return True


def restore_nfc(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Put NFC back into `model` where `config` states it."""
    steps = _steps(model)
    if config.get(NORMALIZATION) == _NFC and not any(
        isinstance(step, normalizers.NFC) for step in steps
    ):
        model.normalizer = _sequence([normalizers.NFC(), *steps])


def move_metaspace_to_config(
    model: tokenizers.Tokenizer, config: dict[str, Any]
) -> tokenizers.Tokenizer | None:
    """`model` with equivalent steps in place of its Metaspace, which is stated in `config`; None if
    there is no Metaspace that can be replaced.

    The steps add a space to the text after each special token, as Metaspace's "always" does.
    """
    metaspace = _metaspace_of(model)
    if metaspace is None:
        return None
    steps = [json.loads(step.__getstate__()) for step in _steps(model)]
    doubled = steps == _FIRST_DOUBLED
    if doubled and metaspace.prepend_scheme != "always":
        return None  # ExecuTorch matches \A again after each replacement
    if any(token.normalized for token in model.get_added_tokens_decoder().values()):
        if steps:
            return None  # the new steps would change the text in which tokens are searched
        model = finding_as_written(model)
    if doubled:  # the same for every prepend_scheme
        model.normalizer = _sequence(space_steps(prefix=True, leading_is_prefix=False))
    else:
        config[METASPACE] = {"prepend_scheme": metaspace.prepend_scheme, "split": metaspace.split}
        model.normalizer = _sequence([*_steps(model), *_spaces(config)])
    cut = pre_tokenizers.Split(Regex(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+"), "isolated")
    model.pre_tokenizer = cut if metaspace.split else None
    if isinstance(model.decoder, decoders.Metaspace):
        prefix = model.decoder.prepend_scheme != "never"  # its own, whatever the other's is
        stripped = [decoders.Strip(" ", 1, 0)] if prefix else []
        model.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.Fuse(), *stripped]
        )
    return model


def _metaspace_of(model: tokenizers.Tokenizer) -> pre_tokenizers.Metaspace | None:
    """The Metaspace of `model`, where it is the only pre-tokenizer."""
    cutter = model.pre_tokenizer
    if isinstance(cutter, pre_tokenizers.Sequence) and len(states_in(cutter)) == 1:
        cutter = cutter[0]
    if not isinstance(cutter, pre_tokenizers.Metaspace) or cutter.replacement != SPACE:
        return None
    return cutter


def stated_metaspace(config: dict[str, Any]) -> dict[str, Any] | None:
    """The Metaspace that a tokenizer_config.json's `config` states in this module's form, or
    None."""
    stated = config.get(METASPACE)
    if not isinstance(stated, dict) or stated.keys() != {"prepend_scheme", "split"}:
        return None
    known = stated["prepend_scheme"] in ("always", "first", "never")
    return stated if known and isinstance(stated["split"], bool) else None


def restore_metaspace(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
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


def remove_empty_steps(model: tokenizers.Tokenizer) -> bool:
    """Remove empty sequences of steps from `model`; returns whether there was one."""
    no_changes = model.normalizer is not None and not _steps(model)
    if no_changes:
        model.normalizer = None
    cutter = model.pre_tokenizer
    no_cuts = isinstance(cutter, pre_tokenizers.Sequence) and not states_in(cutter)
    if no_cuts:
        model.pre_tokenizer = None
    return no_changes or no_cuts


def make_template_of_ends(model: tokenizers.Tokenizer) -> bool:
    """Put the tokens at both ends of a text by a template in `model`, where its post-processor is
    one that can do nothing else; returns whether it was."""
    processor = model.post_processor
    if not isinstance(processor, processors.BertProcessing | processors.RobertaProcessing):
        return False
    state = json.loads(processor.__getstate__())
    first, last = (tuple(state[end]) for end in ("cls", "sep"))
    if any(token.startswith("$") or ":" in token for token, _ in (first, last)):
        return False  # a template reads these otherwise
    model.post_processor = processors.TemplateProcessing(
        single=[first[0], "$A", last[0]], special_tokens=[first, last]
    )
    return True


def move_space_runs_to_config(
    model: tokenizers.Tokenizer, config: dict[str, Any]
) -> tokenizers.Tokenizer | None:
    """`model` whose runs of spaces are vocabulary pieces only, no longer added tokens, and are
    stated in `config`; None if no added token is a run of spaces (Gemma has such tokens).

    Merges still produce them. Added tokens are searched before spaces become `▁`, so they would be
    found only where the text itself has this character.
    """
    if model.normalizer is None or SPACE not in model.normalizer.normalize_str("a b"):
        return None
    runs = [
        token.content
        for token in model.get_added_tokens_decoder().values()
        if _is_run_of_spaces(model, token.content) and not token.special and not token.normalized
    ]
    if not runs:
        return None
    config[_RUNS] = runs
    state = json.loads(model.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] not in runs
    ]
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def restore_space_runs(model: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Add the runs of spaces that `config` states as tokens again."""
    stated = config.get(_RUNS)
    for run in stated if isinstance(stated, list) else []:
        if isinstance(run, str) and _is_run_of_spaces(model, run):
            model.add_tokens([tokenizers.AddedToken(run, normalized=False)])


def _is_run_of_spaces(model: tokenizers.Tokenizer, token: str) -> bool:
    return set(token) == {SPACE} and model.model.token_to_id(token) is not None


def _steps(model: tokenizers.Tokenizer) -> list[Any]:
    whole = model.normalizer
    if isinstance(whole, normalizers.Sequence):
        return [whole[index] for index in range(len(whole))]
    return [] if whole is None else [whole]


def _sequence(steps: list[Any]) -> Any:
    if len(steps) == 1:
        return steps[0]
    return normalizers.Sequence(steps) if steps else None
