"""Settings at the end of a detector's name, e.g. "?crop_scale=1.67,threshold=0.3"."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from taskpress.errors import RecognizerError, suggestion

SETTINGS = re.compile(r"\?(\w+=[^,?/]*(?:,\w+=[^,?/]*)*)$")


@dataclass(frozen=True)
class DetectorSettings:
    """How a detector sees pictures; None leaves a value to the model.

    threshold:     lowest score of a pseudo-label, 0 to 1
    shortest_edge: pixels to which a picture's short side is scaled …
    longest_edge:  … unless its long side would come out longer than this
    crop_scale:    factor by which `loss` and `features` scale pictures instead; see `FrozenDetector`
    """

    threshold: float | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    crop_scale: float | None = None

    @property
    def suffix(self) -> str:
        """What `parse_settings` takes them from: "" or "?…"."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        pairs = [f"{name}={value}" for name, value in given.items() if value is not None]
        return "?" + ",".join(pairs) if pairs else ""


def parse_settings(spec: str) -> tuple[str, DetectorSettings]:
    """Splits "NAME:WEIGHTS?crop_scale=1.67,threshold=0.3" into what is before the "?" and the settings.

    Raises RecognizerError for a setting that does not exist or a value out of range.
    """
    match = SETTINGS.search(spec)
    if match is None:
        return spec, DetectorSettings()
    known = [field.name for field in fields(DetectorSettings)]
    values: dict[str, float | int] = {}
    for pair in match[1].split(","):
        key, _, text = pair.partition("=")
        if key not in known:
            raise RecognizerError(f"{spec}: no setting is named '{key}'; {suggestion(key, known)}")
        values[key] = _edge(spec, key, text) if key.endswith("_edge") else _number(spec, key, text)
    return spec[: match.start()], DetectorSettings(**values)  # type: ignore[arg-type]


def _edge(spec: str, key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise RecognizerError(f"{spec}: {key} is '{text}'; give a whole number of pixels")
    return int(text)


def _number(spec: str, key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RecognizerError(f"{spec}: {key} is '{text}'; give a number") from error
