"""A tokenizer.json for what only has to have one."""

import tokenizers

EMPTY_TOKENIZER = tokenizers.Tokenizer(tokenizers.models.BPE()).to_str()
