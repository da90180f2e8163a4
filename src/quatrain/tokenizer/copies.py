"""A model's tokenizer written for what runs it: one tokenizer.json that holds every token and pads
and cuts nothing, and one tokenizer_config.json with its chat templates and ids."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quatrain.json_files import read_object, write_json
from quatrain.tokenizer.end_tokens import eos_idx_of, token_ids
from quatrain.tokenizer.executorch_form import (
    make_template_of_ends,
    move_metaspace_to_config,
    move_nfc_to_config,
    move_space_runs_to_config,
    remove_empty_steps,
)
from quatrain.tokenizer.executorch_splits import make_splits_cover_text
from quatrain.tokenizer.files import CONFIG, TOKENIZER, tokenizer_in
from quatrain.tokenizer.load import Tokenizer, read_tokenizer
from quatrain.tokenizer.rebuilt import is_built_anew


def copy_tokenizer_files(
    source: Path, folder: Path, bos_id: int | None = None, eos_ids: list[int] | None = None
) -> list[Path]:
    """Write the tokenizer `source`, a file that holds one or a folder with such a file, to
    `folder`.

    tokenizer.json gives the ids that transformers gives, here and on a phone
    (`quatrain.tokenizer.executorch_form`), and is `source`'s own where that does so alone.
    tokenizer_config.json states what the files beside it say, and the ids that begin and end a
    text: the given ones and the tokenizer's own. Returns what it wrote: nothing if a folder has
    none. Raises `InputError` if a file is damaged.
    """
    file = tokenizer_in(source) if source.is_dir() else source
    if file is None:
        return []
    model, config, changed = read_tokenizer(file)
    own = Tokenizer(model, config, str(file)).eos_ids
    if (spaced := move_metaspace_to_config(model, config)) is not None:
        model, changed = spaced, True
    composed = move_nfc_to_config(model, config)
    emptied, whole = remove_empty_steps(model), make_splits_cover_text(model)
    ended = make_template_of_ends(model)
    changed |= composed or emptied or whole or ended
    if (fewer_added := move_space_runs_to_config(model, config)) is not None:
        model, changed = fewer_added, True
    ends = list(dict.fromkeys([*(eos_ids or []), *own]))
    if ends:
        config["eos_token_id"] = ends
    if bos_id is not None:
        config["bos_token_id"] = bos_id
    if is_built_anew(config):  # what it would do is in the tokenizer.json that is written
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    written = [folder / TOKENIZER, folder / CONFIG]
    write_json(written[1], config)
    if changed:
        model.save(str(written[0]))
    else:
        written[0].write_bytes(file.read_bytes())
    return written


def with_end_ids(params: dict[str, Any], written: Iterable[Path]) -> dict[str, Any]:
    """`params` with the `eos_idx` that the tokenizer_config.json among the files `written` by
    Quatrain states; as they are where there is none."""
    configs = [file for file in written if file.name.endswith(CONFIG)]
    ends = [end for file in configs for end in token_ids(read_object(file).get("eos_token_id"))]
    return {**params, "eos_idx": eos_idx_of(ends)} if ends else params
