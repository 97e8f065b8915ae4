"""One table of results by several recognizers: does a codec serve those that it was not trained for?"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from taskpress.errors import DataError
from taskpress.evaluation.comparison import must_match
from taskpress.evaluation.fidelity import Fidelity
from taskpress.evaluation.metrics import COMPARED
from taskpress.evaluation.result import Result
from taskpress.evaluation.seeds import OperatingPoint, Spread, repeats

Cell = str | Spread | None


class SideBySide(NamedTuple):
    """columns: heading and decimals, None for words; rows: a cell for each; notes: what was left out, why."""

    columns: list[tuple[str, int | None]]
    rows: list[list[Cell]]
    notes: list[str]

    def markdown(self) -> str:
        """A table of GitHub's Markdown; what follows ± is the standard deviation over the seeds."""
        lines = [
            [heading for heading, _ in self.columns],
            ["---" if digits is None else "---:" for _, digits in self.columns],
            *(
                [_text(cell, digits) for cell, (_, digits) in zip(row, self.columns, strict=True)]
                for row in self.rows
            ),
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """Numbers in full, of means without deviations; empty where there is none."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(heading for heading, _ in self.columns)
        writer.writerows(
            [cell.mean if isinstance(cell, Spread) else cell for cell in row] for row in self.rows
        )
        return buffer.getvalue()


def side_by_side(results: Sequence[Result], means: bool = False) -> SideBySide:
    """A row for each codec: rate, PSNR, MS-SSIM, then the scores by every recognizer; first the uncompressed.

    Learned curves stand before classical ones, points in order of rate; columns of which nothing is known
    are left out. means: a row for each λ instead, averaged over the seeds.

    Raises DataError where results are of different pictures or sizes, and where one recognizer scored a
    codec twice.
    """
    if not results:
        raise DataError("nothing to put into a table: give result files of `taskpress evaluate` or `anchor`")
    must_match(results, same_recognizer=False)
    judges: dict[str, list[Result]] = {}
    for result in results:
        judges.setdefault(result.recognizer_fingerprint or result.recognizer, []).append(result)
    notes: list[str] = []
    rows: dict[tuple[str, ...], dict[str, OperatingPoint[Result]]] = {}
    for judge, seen in judges.items():
        for point in _points(seen, means, notes):
            row = rows.setdefault(_key(point), {})
            if judge in row:
                codec, recognizer = point.results[0].codec, seen[0].recognizer
                raise DataError(f"{codec!r} was scored twice by {recognizer!r}: leave one result out")
            row[judge] = point
    columns: list[tuple[str, int | None]] = [(heading, digits) for heading, digits, _ in _OF_CODEC]
    metrics = [(judge, metric) for judge, seen in judges.items() for metric in COMPARED[seen[0].task]]
    titles = _titles({judge: seen[0].recognizer for judge, seen in judges.items()})
    columns += [(f"{metric.heading}, {titles[judge]}", 1) for judge, metric in metrics]
    uncompressed = [judges[judge][0].uncompressed_scores.get(metric.key) for judge, metric in metrics]
    table: list[list[Cell]] = [
        [
            "uncompressed",
            *[None] * (len(_OF_CODEC) - 1),
            *(None if u is None else Spread(u, None) for u in uncompressed),
        ]
    ]
    for row in sorted(rows.values(), key=_place):
        any_point = next(iter(row.values()))
        table.append([cell(any_point) for _, _, cell in _OF_CODEC])
        for judge, metric in metrics:
            scored = row.get(judge)
            table[-1].append(None if scored is None else scored.score_spread(metric.key))
    used = [index for index in range(len(columns)) if any(cells[index] is not None for cells in table)]
    return SideBySide(
        [columns[index] for index in used], [[cells[index] for index in used] for cells in table], notes
    )


def _points(results: Sequence[Result], means: bool, notes: list[str]) -> list[OperatingPoint[Result]]:
    if not means:
        return [OperatingPoint((result,)) for result in results]
    found: list[OperatingPoint[Result]] = []
    for curve in dict.fromkeys(result.curve for result in results):
        group = repeats(curve, [result for result in results if result.curve == curve])
        found += group.points
        notes += [group.note] if group.note is not None and group.note not in notes else []
    return found


def _key(point: OperatingPoint[Result]) -> tuple[str, ...]:
    """What makes a row: codecs of one name are told apart by their weights."""
    return tuple(f"{r.curve}/{r.codec}/{r.codec_fingerprint}" for r in point.results)


def _place(row: dict[str, OperatingPoint[Result]]) -> tuple[bool, str, float]:
    point = next(iter(row.values()))
    return not point.results[0].learned, point.results[0].curve, point.bpp


def _names(values: Sequence[object]) -> str | None:
    return ", ".join(dict.fromkeys(str(value) for value in values)) or None


def _trained(value: Callable[..., object]) -> Callable[[OperatingPoint[Result]], str | None]:
    return lambda point: _names([value(r.training) for r in point.results if r.training is not None])


def _seen(value: Callable[[Fidelity], float | None]) -> Callable[[OperatingPoint[Result]], Spread | None]:
    return lambda point: point.spread(lambda r: None if r.fidelity is None else value(r.fidelity))


_OF_CODEC: tuple[tuple[str, int | None, Callable[[OperatingPoint[Result]], Cell]], ...] = (
    ("curve", None, lambda point: point.results[0].curve),
    ("codec", None, lambda point: _names([result.codec for result in point.results])),
    ("λ", None, _trained(lambda training: f"{training.lmbda:g}")),
    ("seed", None, _trained(lambda training: training.seed)),
    ("bpp", 3, lambda point: point.spread(lambda result: result.bpp)),
    ("PSNR, dB", 2, _seen(lambda fidelity: fidelity.psnr)),
    ("MS-SSIM", 4, _seen(lambda fidelity: fidelity.ms_ssim)),
)
"""Columns of what is true of a codec whoever judges it: heading, decimals (None for words), cell."""


def _titles(names: dict[str, str]) -> dict[str, str]:
    """What recognizers are called: their names, and those of one name by the start of their fingerprint."""
    listed = list(names.values())
    return {
        judge: f"{name} ({judge[:8]})" if listed.count(name) > 1 else name for judge, name in names.items()
    }


def _text(cell: Cell, digits: int | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    beside = "" if cell.deviation is None else f" ± {cell.deviation:.{digits}f}"
    return f"{cell.mean:.{digits}f}{beside}"
