"""The toy language: text of twelve letters, and the speech codes that say it.

A letter sounds different after a vowel, so its code is 2 * letter, plus 1 after a vowel. The
first code stands alone. Of the 256 codes that the codec knows, the language uses 52 and one to
stop: the vocabulary that is left after pruning.
"""

import torch

LETTERS = 26
LENGTH = 12  # letters of a text, and codes that say it
CODEC_SIZE = 256
STOP = 255
VOWELS = torch.tensor([0, 4, 8, 14, 20])
KEPT_CODES = [*range(2 * LETTERS), STOP]
# What the backbone reads: letters, a mark that speech begins, codes.
START = LETTERS
FIRST_CODE = LETTERS + 1
INPUTS = FIRST_CODE + CODEC_SIZE


def random_text(count: int, generator: torch.Generator) -> torch.Tensor:
    """Letters [count, LENGTH]."""
    return torch.randint(LETTERS, (count, LENGTH), generator=generator)


def spoken(text: torch.Tensor) -> torch.Tensor:
    """The codes [count, LENGTH] that say letters [count, LENGTH]."""
    after_vowel = torch.isin(text, VOWELS).roll(1, dims=1)
    after_vowel[:, 0] = False
    return 2 * text + after_vowel


def training_pairs(text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [count, 2 * LENGTH + 1] and the code expected after each of the last LENGTH + 1."""
    codes = spoken(text)
    start = torch.full((len(text), 1), START)
    stop = torch.full((len(text), 1), STOP)
    return torch.cat((text, start, codes + FIRST_CODE), 1), torch.cat((codes, stop), 1)
