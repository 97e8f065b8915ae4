"""`taskpress compare`: curves and BD-rate from result files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpress.cli.measuring import AsJson
from taskpress.cli.results import figure
from taskpress.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from taskpress.evaluation.bd_rate import BdRate
    from taskpress.evaluation.bootstrap import Interval
    from taskpress.evaluation.comparison import Comparison
    from taskpress.evaluation.result import Result
    from taskpress.evaluation.seeds import Spread


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="Result files of evaluate or anchor, or folders of them."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for comparison.json and rd.png.")],
    anchor: Annotated[
        str | None,
        typer.Option("--anchor", help='Curve the others are held against; else "task", else the first.'),
    ] = None,
    curves: Annotated[
        list[str] | None,
        typer.Option(
            "--curve",
            metavar="NAME=PATTERN",
            help="Put results whose file matches into a curve of that name, e.g. 'mine=runs/mine/*'.",
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Draws of pictures for 95 % intervals; 0: none.")
    ] = 1000,
    as_json: AsJson = False,
) -> None:
    """Draw rate-accuracy curves of results, and state how many bits each saves.

    BD-rate is the mean rate difference at equal accuracy, over the accuracies
    both curves reach; negative is fewer bits. Curves that do not overlap get no
    number but the reason. In brackets: where it lies with 95 % of other
    pictures, by drawing these anew, with replacement, the same for all curves (where
    results have their NAME.matches.npz beside them), corrected for what draws are off.

    Codecs of one curve and λ that differ in their seed are averaged, and the
    BD-rate is also stated seed by seed: against the anchor's of the same seed.

    Example: taskpress compare run-seed1/results run-seed2/results -o comparison
    """
    from taskpress.evaluation import comparison as comparing
    from taskpress.evaluation.rd_figure import write_comparison
    from taskpress.evaluation.result import Result

    paths = comparing.find_results(results)
    read = renamed([Result.read(path) for path in paths], paths, curves or ())
    comparison = comparing.compare(read, anchor, bootstrap)
    written = write_comparison(comparison, output)
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=1))
        return
    print_comparison(comparison)
    for path in written:
        typer.echo(path)


def renamed(results: Sequence[Result], paths: Sequence[Path], curves: Sequence[str]) -> list[Result]:
    """The results in the curves that NAME=PATTERN say; ConfigError for one that fits no file.

    Who says so may put trainings of several experiments into one: a λ that was trained later, say.
    """
    found = list(results)
    for option in curves:
        name, equals, pattern = option.partition("=")
        fitting = [place for place, path in enumerate(paths) if fnmatchcase(str(path), pattern)]
        if not (name and equals and fitting):
            raise ConfigError(
                f"--curve {option}: write NAME=PATTERN, the pattern one that files of results fit, e.g. "
                f"mine={paths[0].parent}/*"
            )
        for place in fitting:
            told = found[place].training
            training = told and told.model_copy(update={"experiment": None})
            found[place] = found[place].model_copy(update={"curve": name, "training": training})
    return found


def print_comparison(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    table = Table(title=f"BD-rate against {comparison.anchor!r}")
    metrics = comparison.metrics
    scores, rates = [m.heading for m in metrics], [f"BD-rate ({m.heading})" for m in metrics]
    for column in ("curve", "bpp", *scores, *rates):
        table.add_column(column, justify="left" if column == "curve" else "right")
    for name, repeats in comparison.repeats.items():
        outcome = comparison.bd_rates.get(name)
        several = len(repeats.by_seed) > 1
        table.add_row(
            f"{name}\n({len(repeats.by_seed)} seeds)" if several else name,
            "\n".join(_spread(point.spread(lambda r: r.bpp), 3) for point in repeats.points),
            *("\n".join(_spread(point.score_spread(m.key), 1) for point in repeats.points) for m in metrics),
            *(
                _cell(outcome[m.key], comparison.intervals.get(name, {}).get(m.key)) if outcome else "anchor"
                for m in metrics
            ),
            end_section=True,
        )
    if any(len(repeats.by_seed) > 1 for repeats in comparison.repeats.values()):
        table.caption = "mean ± standard deviation over the seeds"
    console.print(table)
    _print_seeds(comparison, console)
    _print_encoders(comparison, console)
    outcomes = [outcome for by_metric in comparison.bd_rates.values() for outcome in by_metric.values()]
    for reason in dict.fromkeys(o.reason for o in outcomes if o.reason):
        console.print(f"no BD-rate: {reason}", style="yellow", highlight=False)
    if any(len(results) == 1 for results in comparison.curves.values()):
        console.print("(--curve NAME=PATTERN puts results into one curve)", style="yellow", highlight=False)
    for note in dict.fromkeys(o.note for o in outcomes if o.note):
        console.print(f"BD-rate: {note}", style="dim", highlight=False)


def _print_seeds(comparison: Comparison, console: Console) -> None:
    """BD-rates seed by seed, where there are several."""
    from rich.table import Table

    table = Table(title=f"BD-rate against {comparison.anchor!r} of the same seed")
    for column in ("curve", "seed", *(m.heading for m in comparison.metrics)):
        table.add_column(column, justify="left" if column == "curve" else "right")
    for name, by_seed in comparison.seed_rates.items():
        for seed, outcome in by_seed.items():
            values = [outcome[m.key].value for m in comparison.metrics]
            if values.count(None) < len(values):
                table.add_row(name, str(seed), *("–" if v is None else f"{v:+.1f} %" for v in values))
    if table.row_count:
        console.print(table)


def _print_encoders(comparison: Comparison, console: Console) -> None:
    """What the senders carry; an allocator's share apart, where some curve has one."""
    from rich.table import Table

    table = Table(title="Encoders")
    columns = ["curve", "parameters", "multiply-adds/pixel", "ms/picture"]
    shares = any(size.allocator for size in comparison.encoders.values())
    for column in [*columns, *(["of which allocator", "map bpp"] if shares else [])]:
        table.add_column(column, justify="left" if column == "curve" else "right")
    for name, size in comparison.encoders.items():
        cells = [
            f"{size.parameters}",
            f"{size.macs_per_pixel:.0f}",
            "–" if size.ms is None else f"{size.ms:.0f}",
        ]
        if (own := size.allocator) is not None:
            cells += [f"{own.parameters} · {own.macs_per_pixel:.0f} · {own.ms:.1f}", f"{own.map_bpp:.4f}"]
        table.add_row(name, *cells)
    if table.row_count:
        console.print(table)
    for name, size in comparison.encoders.items():
        if size.besides is not None:
            console.print(f"{name}: besides, {size.besides}", style="dim", highlight=False)


def _spread(found: Spread | None, digits: int) -> str:
    if found is None:
        return figure(None)
    beside = "" if found.deviation is None else f" ± {found.deviation:.{digits}f}"
    return f"{found.mean:.{digits}f}{beside}"


def _cell(outcome: BdRate, spread: Interval | None) -> str:
    if outcome.value is None or outcome.overlap is None or outcome.share is None:
        return "none, see below"
    low, high = outcome.overlap
    sure = "" if spread is None else f"\n[{spread.low:+.1f}, {spread.high:+.1f}]"
    if spread is not None and spread.undefined:
        sure += f"\nwithout {100 * spread.undefined:.1f} % of draws,\nwhich do not overlap"
    return (
        f"{outcome.value:+.1f} %{sure}\nover {low:.1f} to {high:.1f}\n({100 * outcome.share:.0f} % overlap)"
    )
