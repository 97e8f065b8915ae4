"""How much of a term's gradient is signal, which lasts when batches are averaged, and how much is noise.

At batch 1 the gradients of two terms are at right angles whatever they ask for, since nearly all of each is
the batch's own. What moves an encoder over many steps is the expectation of what steps take of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taskpress.evaluation.curve_drawing import COLOURS
from taskpress.evaluation.figures import new_figure, to_png
from taskpress.evaluation.stored import LAMBDA, Stored, StoredFile

COLUMNS = 2**14
"""Weights whose inner products are summed at once."""


class Term(Stored):
    """One term's gradient, weight included.

    signal:    norm of its expectation, 0 where the estimate of its square is not above 0
    low, high: signals whose squares are two standard errors (jackknife over batches) from that estimate
    noise:     root of the expected squared distance of one batch's gradient from the expectation
    """

    signal: float = Field(ge=0)
    low: float = Field(ge=0)
    high: float = Field(ge=0)
    noise: float = Field(ge=0)


class Cosine(Stored):
    """Between the expectations of two terms; None where one of them is not told from 0."""

    value: float | None
    error: float | None


class Signals(Stored):
    """The signals of one training, at the step of its checkpoint.

    lmbda: λ; cosines by the names of both terms, `task aux`
    """

    training: str
    arm: str
    lmbda: float = Field(validation_alias=LAMBDA)
    alpha: float
    auxiliary: str
    step: int
    batches: int
    parameters: int
    terms: dict[str, Term]
    cosines: dict[str, Cosine]


class Statistics(NamedTuple):
    """terms by name; cosines by the names of both, `task aux`."""

    terms: dict[str, Term]
    cosines: dict[str, Cosine]


class GradientSignals(StoredFile):
    """What `taskpress gradient-signal` writes."""

    written_by: ClassVar[str] = "taskpress gradient-signal"

    trainings: list[Signals]
    command: str
    versions: dict[str, str]


def statistics(gradients: NDArray[np.float32], names: Sequence[str]) -> Statistics:
    """Signal and noise of each term, cosines of each pair.

    gradients: [T, n, P] of T terms, called `names`, the same n ≥ 3 batches for all

    Inner products of different batches' gradients are unbiased estimates of those of the expectations; the
    product of a batch with itself is not, and is left out.
    """
    count, n = gradients.shape[:2]
    gram = _gram(gradients.reshape(count * n, -1)).reshape(count, n, count, n)
    own = np.einsum("aibi->abi", gram)
    rows, columns = gram.sum(axis=3).transpose(0, 2, 1) - own, gram.sum(axis=1) - own
    pairs = rows.sum(axis=2)
    whole = pairs / (n * (n - 1))
    without = np.moveaxis(pairs[..., None] - rows - columns, 2, 0) / ((n - 1) * (n - 2))
    terms, cosines = {}, {}
    for place, name in enumerate(names):
        square, error = whole[place, place], _jackknife(without[:, place, place])
        terms[name] = Term(
            signal=_root(square),
            low=_root(square - 2 * error),
            high=_root(square + 2 * error),
            noise=_root(own[place, place].mean() - max(0.0, square)),
        )
    for first, second in combinations(range(count), 2):
        value = _cosine(whole, first, second)
        others = [_cosine(one, first, second) for one in without]
        known = np.array([other for other in others if other is not None])
        sure = value is not None and len(known) == n
        cosines[f"{names[first]} {names[second]}"] = Cosine(
            value=float(np.clip(value, -1, 1)) if value is not None and sure else None,
            error=_jackknife(known) if sure else None,
        )
    return Statistics(terms, cosines)


def _gram(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner products of all rows, in float64, without a second copy of them."""
    gram = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], COLUMNS):
        block = rows[:, start : start + COLUMNS].astype(np.float64)
        gram += block @ block.T
    return gram


def _cosine(products: NDArray[np.float64], first: int, second: int) -> float | None:
    """The cosine of two estimates, which may lie beyond 1.

    Clipped before its spread is taken, it would look certain.
    """
    squares = products[first, first], products[second, second]
    if min(squares) <= 0:
        return None
    return float(products[first, second] / np.sqrt(squares[0] * squares[1]))


def _root(square: float) -> float:
    return float(np.sqrt(max(0.0, square)))


def _jackknife(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((len(values) - 1) * np.var(values)))


def signal_figure(found: GradientSignals) -> bytes:
    """PNG: of every training a bar for each term's signal, its interval, and a mark for its noise."""
    terms = list(dict.fromkeys(name for one in found.trainings for name in one.terms))
    count = len(found.trainings)
    figure = new_figure(max(6.4, 1.6 * count + 2.4), 4.6)
    ax = figure.subplots()
    width = 0.8 / len(terms)
    for place, name in enumerate(terms):
        there = [(index, one.terms[name]) for index, one in enumerate(found.trainings) if name in one.terms]
        x = [index + (place - (len(terms) - 1) / 2) * width for index, _ in there]
        colour = COLOURS[place % len(COLOURS)]
        signals = [term.signal for _, term in there]
        errors = [(term.signal - term.low, term.high - term.signal) for _, term in there]
        ax.bar(x, signals, 0.9 * width, color=colour, label=f"{_LABELS.get(name, name)}: signal")
        ax.errorbar(x, signals, np.transpose(errors), fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
        ax.scatter(
            x, [term.noise for _, term in there], marker="_", s=200, linewidth=2, color=colour, zorder=3
        )
    ax.scatter([], [], marker="_", s=200, linewidth=2, color="0.3", label="noise of one batch")
    ax.set_ylim(bottom=0)
    ax.set_xticks(range(count), [_title(one) for one in found.trainings], fontsize=8)
    ax.set_ylabel("norm at the encoder's weights")
    ax.grid(axis="y", color="0.9", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return to_png(figure)


_LABELS = {"task": "λ L_task", "aux": "λ α L_aux", "rate": "R"}


def _title(one: Signals) -> str:
    return f"{one.training}\n{one.auxiliary}, α = {one.alpha:g}\nλ = {one.lmbda:g}, step {one.step}"
