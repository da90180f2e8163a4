"""Options of commands that generate text: sampling and stop strings."""

from typing import Annotated

import typer

from quatrain.errors import InputError
from quatrain.runtime.generation.sampling import Sampling
from quatrain.runtime.generation.stop_strings import check_stops


def _checked_stops(stop: list[str] | None) -> list[str] | None:
    """`stop`; refused during parsing if one would end every text."""
    check_stops(stop or ())
    return stop


MaxNewTokens = Annotated[int, typer.Option(metavar="N", min=1, help="The most tokens to generate.")]
Temperature = Annotated[
    float,
    typer.Option(metavar="T", help="Sampling temperature; 0 always takes the most likely token."),
]
TopK = Annotated[
    int, typer.Option(metavar="K", help="Sample among the K most likely tokens; 0: among all.")
]
TopP = Annotated[
    float,
    typer.Option(
        metavar="P", help="Sample among the most likely tokens whose probabilities add up to P."
    ),
]
MinP = Annotated[
    float,
    typer.Option(metavar="P", help="Exclude tokens less likely than P times the most likely one."),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        metavar="X", help="Above 1: make tokens of the prompt and the answer less likely."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="S", help="Random seed for a temperature above 0: from 0, the default, to 2^64 - 1."
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT", help="Stop before this text; may be repeated.", callback=_checked_stops
    ),
]


def sampling_of(
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: int | None,
) -> Sampling:
    """The options as one. Raises `InputError` if one is wrong, or changes nothing."""
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed or 0)
    if seed is not None and temperature == 0:
        raise InputError(
            f"--seed {seed} has no effect with --temperature 0, which always takes the most likely "
            "token; give a --temperature above 0, or leave --seed out"
        )
    return sampling
