"""What result files are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Stored(BaseModel):
    """A part of a result file: JSON, in which NaN and infinity are no numbers."""

    model_config = ConfigDict(allow_inf_nan=False)
