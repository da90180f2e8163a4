"""What can be sampled with; torch-free, so that a wrong option is refused at once."""

import math

from quatrain.errors import InputError


def check_sampling(temperature: float, seed: int) -> None:
    """Refuse, with `InputError`, what cannot be sampled with."""
    if not 0 <= temperature < math.inf:
        raise InputError(f"--temperature is {temperature}, expected a number of 0 or more")
    if not 0 <= seed < 2**64:
        raise InputError(f"--seed is {seed}, expected an integer from 0 to 2^64 - 1")
