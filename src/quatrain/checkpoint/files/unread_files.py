"""Names the files of weights in a folder that are not read."""

from collections.abc import Sequence
from pathlib import Path

from quatrain.checkpoint.files.adapter_folder import may_hold_a_model
from quatrain.checkpoint.files.formats import PICKLED
from quatrain.folder_entries import entries
from quatrain.short_lists import and_more


def unread_weights(folder: Path, read: Sequence[Path]) -> tuple[str, ...]:
    """A note on files in `folder` that may hold a model too, beside those that are `read`: training
    or a conversion may have left the ones or the others, with other values."""
    unread = [
        file.name
        for file in entries(folder)
        if file not in read
        and file.suffix in (".safetensors", *PICKLED)
        and may_hold_a_model(file.name)
        and file.is_file()
    ]
    if not unread:
        return ()
    own, are, them = and_more([file.name for file in read]), "are", "them, and their index,"
    if len(read) == 1:
        are, them = "is", own
    other, are_not, those = and_more(unread), "are not", "one of those"
    if len(unread) == 1:
        are_not, those = "is not", "that"
    return (
        f"{own} {are} read, and {other} beside {'it' if len(read) == 1 else 'them'} {are_not}. "
        f"If {those} is the model, move {them} out of the folder.",
    )
