"""Curves from result files: which coder needs how many bits for the same accuracy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.bd_rate import BdRate, Curve, bd_rate
from taskpress.evaluation.bootstrap import Interval, bd_rates, draws, interval, mean_curve, sample
from taskpress.evaluation.encoder_size import EncoderSize, mean_size
from taskpress.evaluation.metrics import COMPARED, Metric
from taskpress.evaluation.result import SAME, Result, same_level
from taskpress.evaluation.seeds import OperatingPoint, Repeats, matched, pairs, repeats
from taskpress.progress import tracked


@dataclass(frozen=True)
class Comparison:
    """Every curve against one anchor.

    curves: results of each curve in order of rate; the anchor first, then learned ones, then classical ones
    repeats: the same by λ and seed
    bd_rates: [curve][metric], of all curves but the anchor; of curves with several seeds, by their means
        over those that both have
    seed_rates: [curve][seed][metric]: the curve's training under a seed against the anchor's under the same,
        which saw the same batches, or against the anchor as a whole where that has no seeds; and the other
        way round. Empty where neither has several seeds.
    intervals: of `bd_rates`, by curve and metric, where results kept their matches
    accuracy_intervals: of the accuracies, by curve and metric, in the order of `curves`
    """

    anchor: str
    curves: dict[str, list[Result]]
    repeats: dict[str, Repeats[Result]]
    bd_rates: dict[str, dict[str, BdRate]]
    seed_rates: dict[str, dict[int, dict[str, BdRate]]]
    intervals: dict[str, dict[str, Interval]] = field(default_factory=dict)
    accuracy_intervals: dict[str, dict[str, list[Interval | None]]] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What was compared: the metrics of the results' task."""
        return COMPARED[next(iter(self.curves.values()))[0].task]

    def as_json(self) -> dict[str, Any]:
        """`comparison.json`: rows of curve, bd_rate, overlap, overlap_share, reason, note, interval, all by
        metric, and seeds, BD-rates by seed and metric; `accuracy_intervals` and `encoders`: by curve."""
        return {
            "schema": 1,
            "anchor": self.anchor,
            "rows": [
                {
                    "curve": name,
                    "bd_rate": {metric: outcome.value for metric, outcome in by_metric.items()},
                    "overlap": {metric: outcome.overlap for metric, outcome in by_metric.items()},
                    "overlap_share": {metric: outcome.share for metric, outcome in by_metric.items()},
                    "reason": {metric: o.reason for metric, o in by_metric.items() if o.reason},
                    "note": {metric: o.note for metric, o in by_metric.items() if o.note},
                    "interval": {m: found._asdict() for m, found in self.intervals.get(name, {}).items()},
                    "seeds": {
                        str(seed): {metric: outcome.value for metric, outcome in of_seed.items()}
                        for seed, of_seed in self.seed_rates.get(name, {}).items()
                    },
                }
                for name, by_metric in self.bd_rates.items()
            ],
            "accuracy_intervals": {
                name: {
                    metric: [found and found._asdict() for found in points]
                    for metric, points in by_metric.items()
                }
                for name, by_metric in self.accuracy_intervals.items()
            },
            "encoders": {name: size.model_dump() for name, size in self.encoders.items()},
        }

    @property
    def encoders(self) -> dict[str, EncoderSize]:
        """What each curve's encoder weighs, where that is known: of learned codecs."""
        sizes = {name: mean_size([p.encoder for p in points]) for name, points in self.curves.items()}
        return {name: size for name, size in sizes.items() if size is not None}


def find_results(paths: Iterable[Path]) -> list[Path]:
    """Result files among the paths: files as they are, folders by their *.json that hold results.

    Raises DataError for a path that does not exist and a folder without results.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in sorted(path.glob("*.json")) if _is_result(file)]
            if not inside:
                raise DataError(
                    f"{path}: no result JSON in this folder; write some with `taskpress evaluate -o {path}`"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such result file or folder")
    return list(dict.fromkeys(found))


def compare(results: Sequence[Result], anchor: str | None = None, resamples: int = 0) -> Comparison:
    """Groups results into curves and states every curve's BD-rate against the anchor curve.

    anchor: a curve's name; None takes "task" where there is one, else the first result's.
    resamples: draws of pictures for bootstrap intervals; 0 for none

    Raises DataError where results are not of the same task, data set, pictures, recognizer and resize, and
    ConfigError for an anchor that is no curve.
    """
    if not results:
        raise DataError("nothing to compare: give result files of `taskpress evaluate` or `anchor`")
    must_match(results)
    curves: dict[str, list[Result]] = {}
    for result in results:
        curves.setdefault(result.curve, []).append(result)
    curves = {name: sorted(points, key=lambda result: result.bpp) for name, points in curves.items()}
    if anchor is None:
        anchor = "task" if "task" in curves else next(iter(curves))
    if anchor not in curves:
        raise ConfigError(f"no curve {anchor!r} among the results: there are {', '.join(curves)}")
    # Learned curves, which a comparison is about, before classical ones, which are its measure.
    curves = dict(sorted(curves.items(), key=lambda one: (one[0] != anchor, not one[1][0].learned)))
    grouped = {name: repeats(name, points) for name, points in curves.items()}
    metrics = [metric.key for metric in COMPARED[results[0].task]]
    outcomes = {
        name: {
            metric: _rate_of_means(grouped[anchor], grouped[name], anchor, name, metric) for metric in metrics
        }
        for name in curves
        if name != anchor
    }
    by_seed = {
        name: {
            seed: {
                metric: bd_rate(
                    _curve(f"{anchor}, seed {seed}", theirs, metric),
                    _curve(f"{name}, seed {seed}", ours, metric),
                    metric,
                )
                for metric in metrics
            }
            for seed, theirs, ours in pairs(grouped[anchor], grouped[name])
        }
        for name in outcomes
    }
    by_seed = {name: found for name, found in by_seed.items() if found}
    comparison = Comparison(anchor, curves, grouped, outcomes, by_seed)
    if not resamples or not any(result.matches for result in results):
        return comparison
    return replace(comparison, **_intervals(comparison, resamples))


def _rate_of_means(
    base: Repeats[Result], test: Repeats[Result], anchor: str, name: str, metric: str
) -> BdRate:
    base_points, test_points, seeds = matched(base, test)
    outcome = bd_rate(_curve(anchor, base_points, metric), _curve(name, test_points, metric), metric)
    unscored = [
        f"{len(missing)} of {len(points)} points of {curve!r} have no score"
        for curve, points in ((anchor, base_points), (name, test_points))
        if 0 < len(missing := [one for one in points if one.score(metric) is None]) < len(points)
    ]
    notes = [note for note in (outcome.note, seeds, base.note, test.note, *unscored) if note]
    return replace(outcome, note="; ".join(notes) or None)


def _intervals(comparison: Comparison, resamples: int) -> dict[str, Any]:
    """The two fields of intervals; the same draws of pictures for all coders."""
    curves, anchor = comparison.curves, comparison.anchor
    any_result = curves[anchor][0]
    weights = draws(any_result.images, resamples)
    order = {picture.id: place for place, picture in enumerate(any_result.pictures)}
    of_rates: dict[str, dict[str, Interval]] = {}
    of_accuracies: dict[str, dict[str, list[Interval | None]]] = {}
    for metric in (one.key for one in comparison.metrics):
        sampled = {
            id(result): sample(result, metric, weights[:, [order[one.id] for one in result.pictures]])
            for result in tracked(
                list(chain.from_iterable(curves.values())), f"{resamples} draws of {metric}"
            )
        }
        for name, results in curves.items():
            points = [sampled[id(result)] for result in results]
            found = [
                None if point is None else interval(point.accuracies, result.scores.get(metric))
                for point, result in zip(points, results, strict=True)
            ]
            if any(found):
                of_accuracies.setdefault(name, {})[metric] = found
        for name, of_curve in comparison.repeats.items():
            if name == anchor:
                continue
            base, test = (
                mean_curve([[sampled[id(one)] for one in point.results] for point in points])
                for points in matched(comparison.repeats[anchor], of_curve)[:2]
            )
            if base is None or test is None:
                continue
            figure = comparison.bd_rates[name][metric].value
            spread = None if figure is None else interval(bd_rates(base, test), figure)
            if spread is not None:
                of_rates.setdefault(name, {})[metric] = spread
    return {"intervals": of_rates, "accuracy_intervals": of_accuracies}


def _curve(name: str, points: Sequence[OperatingPoint[Result]], metric: str) -> Curve:
    scored = [(point.bpp, point.score(metric)) for point in points]
    return Curve(
        name, [(rate, score) for rate, score in scored if score is not None and not math.isnan(score)]
    )


def must_match(results: Sequence[Result], same_recognizer: bool = True) -> None:
    """Raises DataError where results are not of the same task, data set, pictures and resize, or, if that is
    asked for, recognizer."""
    first = results[0]
    for result in results[1:]:
        same: list[tuple[str, object, object]] = [
            ("data set", first.dataset, result.dataset),
            ("number of pictures", first.images, result.images),
            ("resize", first.resize, result.resize),
        ]
        if same_recognizer:
            same = [
                ("task", str(first.task), str(result.task)),
                *same,
                ("recognizer", first.recognizer, result.recognizer),
                ("recognizer fingerprint", first.recognizer_fingerprint, result.recognizer_fingerprint),
            ]
        for what, ours, theirs in same:
            if ours != theirs:
                raise DataError(
                    f"results do not compare: {what} of {first.codec!r} is {ours!r}, "
                    f"of {result.codec!r} {theirs!r}; evaluate both in the same way"
                )
        if not _same_pictures(first, result):
            raise DataError(
                f"results do not compare: {first.codec!r} and {result.codec!r} coded different pictures"
            )
        apart = [key for key in first.uncompressed_scores if _apart(first, result, key)]
        if same_recognizer and apart:
            raise DataError(
                f"results do not compare: uncompressed, {apart[0]} was "
                f"{first.uncompressed_scores[apart[0]]:.1f} for {first.codec!r} and "
                f"{result.uncompressed_scores[apart[0]]:.1f} for {result.codec!r}; evaluate both on the same "
                "pictures and annotations"
            )


def _same_pictures(first: Result, second: Result) -> bool:
    ours, theirs = ({one.id: one for one in result.pictures} for result in (first, second))
    return ours.keys() == theirs.keys() and all(
        one.pixels == theirs[id_].pixels and same_level(one.level, theirs[id_].level)
        for id_, one in ours.items()
    )


def _apart(first: Result, second: Result, metric: str) -> bool:
    """Whether the recognizer scored the uncompressed pictures differently, by more than machines differ."""
    scores = [one.uncompressed_scores.get(metric) for one in (first, second)]
    known = [score for score in scores if score is not None]
    return len(known) == 2 and abs(known[0] - known[1]) > SAME


def _is_result(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"schema", "curve", "bpp"} <= content.keys()
