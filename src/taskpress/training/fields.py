"""Values of settings that are more than a number or a word, each with its check."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, PositiveFloat

from taskpress.auxiliary.named import check_auxiliary
from taskpress.coding.models import ARCHITECTURES
from taskpress.errors import ConfigError
from taskpress.own_code import is_own


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]{0,99}", name):
        raise ValueError("it names files: letters, digits, `.`, `_`, `+` and `-`, at most 100 of them")
    return name


def _branch_name(name: str) -> str:
    try:
        check_auxiliary(name)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name


def _architecture(name: str) -> str:
    known = [*ARCHITECTURES, "python:FILE.py:CLASS"]
    if is_own(name) or name in known:
        return name
    raise ValueError(f"no architecture is named {name!r}; choose one of {', '.join(known)}")


ArchitectureName = Annotated[str, AfterValidator(_architecture)]
BranchName = Annotated[str, AfterValidator(_branch_name)]
Name = Annotated[str, AfterValidator(_file_name)]

Numbers = TypeVar("Numbers", list[float], tuple[float, float])


def _increasing(numbers: Numbers) -> Numbers:
    if list(numbers) != sorted(numbers):
        raise ValueError(f"{list(numbers)} is not in increasing order")
    return numbers


def _different(lambdas: list[float]) -> list[float]:
    if len(set(lambdas)) < len(lambdas):
        raise ValueError(f"{lambdas} has a λ twice")
    return lambdas


Lambdas = Annotated[
    list[PositiveFloat], Field(min_length=1), AfterValidator(_increasing), AfterValidator(_different)
]
Factors = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_increasing)]
