"""What a coder's predictions matched, picture by picture: enough to score any mix of the pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray


class Matches(ABC):
    """One score of one coder, in a form that the bootstrap can resample; a frozen dataclass of arrays."""

    @property
    @abstractmethod
    def pictures(self) -> int:
        """How many were scored."""

    @abstractmethod
    def accuracies(self, weights: NDArray[np.integer]) -> NDArray:
        """[R] in 0 ... 100, of R mixes of the pictures; NaN for a mix in which nothing counts.

        weights: [R, pictures], how often each picture is taken
        """

    @property
    def accuracy(self) -> float:
        """Of all pictures, each taken once."""
        return float(self.accuracies(np.ones((1, self.pictures), np.int64))[0])

    def arrays(self) -> dict[str, NDArray]:
        """Everything as plain arrays, for a file without pickle."""
        return {name: np.asarray(getattr(self, name)) for name in self.names()}

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]  # type: ignore[arg-type] # subclasses are dataclasses

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Self:
        """The inverse of `arrays`. Raises KeyError where one is missing."""
        return cls(**{name: arrays[name] for name in cls.names()})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Matches):
            return NotImplemented
        ours, theirs = self.arrays(), other.arrays()
        return ours.keys() == theirs.keys() and all(np.array_equal(ours[n], theirs[n]) for n in ours)


@dataclass(frozen=True, eq=False)
class PixelMatches(Matches):
    """Pixels of each picture and class, [pictures, classes] int64 each: those that are of the class and were
    called so, those that are of it, those that were called so. What has no truth is not among them."""

    right: NDArray[np.int64]
    real: NDArray[np.int64]
    called: NDArray[np.int64]

    @classmethod
    def of_all(cls, pictures: Sequence[PixelMatches]) -> PixelMatches:
        """One for all pictures, of at least one."""
        return cls(*(np.concatenate([getattr(one, name) for one in pictures]) for name in cls.names()))

    @property
    def pictures(self) -> int:
        return len(self.right)

    def accuracies(self, weights: NDArray[np.integer]) -> NDArray:
        """mIoU: over all counted pixels of all pictures together,

            IoU_k = pixels that are k and were called k / pixels that are k or were called k,

        averaged over the classes that the truth has. A class it does not have counts through the pixels that
        it takes from others.
        """
        right, real, called = (weights @ counts for counts in (self.right, self.real, self.called))
        there = real > 0
        with np.errstate(invalid="ignore"):
            overlap = np.where(there, right / np.maximum(real + called - right, 1), 0)
            return 100 * overlap.sum(1) / there.sum(1)


@dataclass(frozen=True, eq=False)
class ClassMatches(Matches):
    """counted: [pictures] bool, whether each has a true class; right: whether it was called by that."""

    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    @property
    def pictures(self) -> int:
        return len(self.right)

    def accuracies(self, weights: NDArray[np.integer]) -> NDArray:
        """Top-1 accuracy: the share of right ones among those that count."""
        with np.errstate(invalid="ignore"):
            return 100 * (weights @ self.right) / (weights @ self.counted)
