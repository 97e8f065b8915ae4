"""What `encode` and `evaluate` share of refining: its options, and the refinement that they ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.errors import ConfigError

if TYPE_CHECKING:
    from taskpress.coding.codec import Codec
    from taskpress.coding.refinement import Refinement

Refine = Annotated[
    int | None,
    typer.Option(
        "--refine",
        metavar="STEPS",
        min=1,
        help="Refine every picture's latent in so many steps (30, say), one picture after another, by the "
        "loss that the codec was trained with: far fewer bits, for seconds a picture and a recognizer in the "
        "encoder. Decoding stays as it is.",
    ),
]
RefineLambda = Annotated[
    float | None,
    typer.Option(
        "--refine-lambda",
        metavar="λ",
        help="λ of that loss: less for fewer bits; a tenth of the training's by default.",
    ),
]
RefineRecognizer = Annotated[
    str | None,
    typer.Option(
        "--refine-recognizer",
        metavar="SPEC",
        help="Whose loss that is, if not the one the codec was trained for.",
    ),
]


def refinements(
    codecs: Sequence[Codec],
    sources: Sequence[str],
    steps: int | None,
    lmbda: float | None,
    recognizer: str | None,
) -> list[Refinement | None]:
    """What --refine asks for, for each codec; recognizers are opened once.

    ConfigError for what goes with --refine without it, and for a λ not above 0.
    """
    if steps is None:
        for option, value in (("--refine-lambda", lmbda), ("--refine-recognizer", recognizer)):
            if value is not None:
                raise ConfigError(f"{option}: says how to refine, so it goes with --refine STEPS")
        return [None] * len(codecs)
    if lmbda is not None and not 0 < lmbda < math.inf:
        raise ConfigError(f"--refine-lambda {lmbda}: λ is above 0")
    from taskpress.recognition.named import load_recognizer
    from taskpress.training.refining import refinement_for

    load = cache(load_recognizer)
    return [
        refinement_for(codec, source, steps, lmbda, recognizer, load)
        for codec, source in zip(codecs, sources, strict=True)
    ]
