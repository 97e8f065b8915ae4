"""What result files are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from taskpress.coding.files import atomic_write
from taskpress.errors import ConfigError, DataError

LAMBDA = AliasChoices("lmbda", "rate")
"""λ, and what older files call it."""


class Stored(BaseModel):
    """A part of a result file: JSON, in which NaN and infinity are no numbers."""

    model_config = ConfigDict(allow_inf_nan=False)


class StoredFile(Stored):
    """A whole file of one JSON object.

    written_by: the command that writes it, for who finds another file in its place
    """

    model_config = ConfigDict(populate_by_name=True)
    written_by: ClassVar[str]

    schema_version: Literal[1] = Field(default=1, alias="schema")

    def content(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes the file, whole or not at all."""
        atomic_write(Path(path), self.content().encode())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Raises DataError naming the file and the first field that does not fit."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "file"
            raise DataError(
                f"{path}: not a file of `{cls.written_by}`: {field}: {first['msg']}; write one with it"
            ) from None


def check_same(path: Path, there: BaseModel, wanted: dict[str, Any]) -> None:
    """ConfigError where the file that is `there` already tells of another measurement than is wanted."""
    other = next((name for name in wanted if getattr(there, name) != wanted[name]), None)
    if other is not None:
        raise ConfigError(
            f"{path}: is of another measurement (its {other.replace('_', ' ')} is {getattr(there, other)}, "
            f"not {wanted[other]}); choose another folder with -o, or measure anew with --force"
        )
