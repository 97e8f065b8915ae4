"""A section of settings, and what is said of one that is wrong."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from taskpress.errors import suggestion

FORMER_NAMES = {"rate": "lmbda", "rates": "lambdas"}
"""Of λ, in cards, folders and commands of earlier versions."""


class Section(BaseModel):
    """Fields are exactly those listed; a misspelt one is an error, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def explain(error: ValidationError) -> str:
    """What is wrong first, in one line: the field, and for a misspelt one the nearest that exists."""
    for one in error.errors():
        *parents, field = one["loc"] or ("",)
        todays = FORMER_NAMES.get(str(field), "")
        if one["type"] == "extra_forbidden" and todays in _fields_at(parents, error.title):
            return f"`{'.'.join(map(str, one['loc']))}` is called `{todays}`"
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        return f"`{where}`: {message}" if where else message
    *parents, field = first["loc"]
    return f"unknown key `{where}`; {suggestion(str(field), _fields_at(parents, error.title))}"


def _fields_at(parents: list[int | str], title: str) -> list[str]:
    """The fields of the section that a validation error points into."""
    model: type[BaseModel] = {c.__name__: c for c in Section.__subclasses__()}[title]
    for parent in parents:
        annotation = model.model_fields[str(parent)].annotation if str(parent) in model.model_fields else None
        sections = [
            c for c in Section.__subclasses__() if annotation is not None and c.__name__ in str(annotation)
        ]
        if not sections:
            break
        model = sections[0]
    return list(model.model_fields)
