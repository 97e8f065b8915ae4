"""What paths in a training's settings stand for: which pictures, which recognizer, by content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskpress.auxiliary.own import own_branch
from taskpress.datasets.coco import CocoImages
from taskpress.datasets.folder import ImageFolder
from taskpress.datasets.own import OwnPictures
from taskpress.errors import ConfigError
from taskpress.own_code import is_own, run_own
from taskpress.recognition.protocol import Recognizer
from taskpress.training.config import RunConfig, expand
from taskpress.training.data import Mixture


def contents_of(
    config: RunConfig, pictures: Mixture, recognizers: Mapping[str, Recognizer]
) -> dict[str, str]:
    """16 hexadecimal digits for each source and recognizer, and for architecture and branches of a user's
    own, by what the settings call them.

    Of a source that is which pictures there are, by name and in order: what is drawn in a step depends on it.
    Of pictures of a user's own it is the code, its argument and their number. Drawn scenes are what they are
    called.
    """
    found = {spec: recognizer.fingerprint[:16] for spec, recognizer in recognizers.items()}
    return {**found, **own_code(config), **contents_of_sources(config.data.sources, pictures)}


def contents_of_sources(sources: Sequence[str | dict[str, str]], pictures: Mixture) -> dict[str, str]:
    """The part of the sources, which `pictures` was opened from."""
    found = {}
    for source, dataset in zip(sources, pictures.datasets, strict=True):
        if isinstance(dataset, ImageFolder | CocoImages):
            found[_key(source)] = _digest(dataset.names)
        elif isinstance(dataset, OwnPictures):
            found[_key(source)] = dataset.digest
    return found


def own_code(config: RunConfig) -> dict[str, str]:
    """Architecture and branches of a user's own that a training has, and a digest of each one's code."""
    kinds = [kind for kind in config.branches if kind is not None and is_own(kind)]
    found = {kind: own_branch(expand(kind)).digest for kind in kinds}
    if is_own(config.codec.architecture):
        spec = config.codec.architecture
        code = run_own(expand(spec), ConfigError)
        found[spec] = f"{code.digest}:{code.name}"
    return found


def by_content(settings: Any, contents: Mapping[str, str]) -> Any:
    """Settings with the digest in place of every path, so that two machines tell the same of one training.

    Names without an argument (`scenes`) are the same everywhere, and stay.
    """
    if isinstance(settings, dict):
        if set(settings) == {"images", "annotations"}:
            return contents.get(_key(settings), settings)
        return {name: by_content(value, contents) for name, value in settings.items()}
    if isinstance(settings, list):
        return [by_content(value, contents) for value in settings]
    if isinstance(settings, str) and any(mark in settings for mark in ":/\\"):
        return contents.get(settings, settings)
    return settings


def check_contents(path: Path, ours: dict[str, str], theirs: Any) -> None:
    """ConfigError where a name stands for other pictures or another recognizer than when a training began."""
    if not isinstance(theirs, dict):
        raise ConfigError(f"{path}: is damaged; remove its folder to train anew")
    changed = next((name for name in ours if theirs.get(name, ours[name]) != ours[name]), None)
    if changed is not None:
        raise ConfigError(
            f"{path}: {changed} is not what it was when this training began (pictures were added, removed or "
            "renamed, or are of a kind that is read since, or a recognizer or code is another); bring it "
            "back, or choose another -o"
        )


def _key(source: str | Mapping[str, str]) -> str:
    return source if isinstance(source, str) else f"{source['images']} by {source['annotations']}"


def _digest(names: Sequence[str]) -> str:
    told = "".join(f"{name}\n" for name in names)
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:16]
