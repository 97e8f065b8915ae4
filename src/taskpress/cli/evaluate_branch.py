"""`taskpress evaluate-branch`: what auxiliary branches themselves see in the latent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskpress.cli.measuring import (
    Annotations,
    AsJson,
    Categories,
    Device,
    Images,
    Limit,
    Output,
    Resize,
    checked_device,
    open_dataset,
)
from taskpress.cli.outcomes import Force, Skip
from taskpress.cli.results import figure, result_paths, results_to_do, told_apart
from taskpress.errors import ConfigError

if TYPE_CHECKING:
    from taskpress.auxiliary.detection import DetectionBranch
    from taskpress.datasets.dataset import Dataset
    from taskpress.evaluation.branch_scores import BranchResult
    from taskpress.training.restore import Restored


def evaluate_branch(
    trainings: Annotated[
        list[Path],
        typer.Argument(metavar="TRAINING...", help="Folders of trainings, e.g. runs/scenes/aux-q2."),
    ],
    images: Images,
    output: Output,
    annotations: Annotations = None,
    categories: Categories = None,
    resize: Resize = None,
    limit: Limit = None,
    show: Annotated[
        int, typer.Option(min=0, help="Draw the first so many pictures into NAME-branch.png.")
    ] = 3,
    device: Device = "cpu",
    force: Force = False,
    skip: Skip = False,
    as_json: AsJson = False,
) -> None:
    """Score what the auxiliary branch of a training finds in the decoded latent.

    The branch exists in a training's checkpoint alone; codec files never hold it.
    Codec and branch come from TRAINING/checkpoints/last.ckpt, pictures are coded
    with rounding, as in real files. The same COCO AP is stated of the branch at
    the latent and of the recognizer it was taught by, at the decoded and at the
    uncompressed pictures, in NAME-branch.json. NAME-branch.png shows what each of
    them found.

    Example: taskpress evaluate-branch runs/scenes/aux-q* --images scenes -o runs/scenes/branch
    """
    from taskpress.coding.files import atomic_write
    from taskpress.evaluation.branch_scores import BranchResult, look_at_latents
    from taskpress.evaluation.detections_figure import detections_figure
    from taskpress.evaluation.stored import check_same
    from taskpress.provenance import command_line, versions
    from taskpress.training.restore import restore

    device = checked_device(device)
    restored = [restore(folder, device) for folder in trainings]
    configs = [one.config for one in restored]
    names = told_apart([config.name for config in configs], [config.seed for config in configs])
    paths = result_paths(output, names, "-branch.json")
    heads = [_detection_branch(one) for one in restored]
    results = []
    every = list(zip(restored, heads, names, strict=True))
    todo = results_to_do(every, paths, output, force, skip)
    left_out = set(paths) - {path for _, path in todo}
    for (one, _, name), path in zip(every, paths, strict=True):
        if path in left_out:
            dataset = open_dataset(images, annotations, categories, limit, one.recognizer)
            check_same(path, BranchResult.read(path), _measurement(one, name, dataset, resize, limit))
    for (one, head, name), path in todo:
        judge = one.recognizer
        dataset = open_dataset(images, annotations, categories, limit, judge)
        seen = look_at_latents(
            one.codec,
            head,
            dataset,
            judge,
            resize=resize,
            limit=limit,
            show=show,
            progress=name,
        )
        result = BranchResult(
            **_measurement(one, name, dataset, resize, limit),
            bpp=seen.bpp,
            scores=seen.scores,
            command=command_line(),
            versions=versions(),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        result.write(path)
        results.append(result)
        if seen.shown:
            picture = detections_figure(seen.shown, judge.categories)
            atomic_write(path.with_suffix(".png"), picture)
    if as_json:
        typer.echo(json.dumps([r.model_dump(mode="json", by_alias=True) for r in results], indent=1))
    elif results:
        _print_table(results)


def _measurement(
    one: Restored, name: str, dataset: Dataset, resize: int | None, limit: int | None
) -> dict[str, Any]:
    """What tells a measurement from others, as `BranchResult` has it by name."""
    from taskpress.evaluation.result import TrainedAs

    config, judge = one.config, one.recognizer
    return {
        "name": name,
        "arm": config.arm,
        "training": TrainedAs(seed=config.seed, lmbda=config.lmbda),
        "alpha": config.objective.alpha,
        "step": one.step,
        "recognizer": judge.name,
        "recognizer_fingerprint": judge.fingerprint,
        "dataset": dataset.name,
        "images": len(dataset) if limit is None else min(limit, len(dataset)),
        "resize": resize,
    }


def _detection_branch(one: Restored) -> DetectionBranch:
    from taskpress.auxiliary.detection import DetectionBranch

    if not isinstance(one.branch, DetectionBranch):
        raise ConfigError(
            f"{one.config.name}: its branch `{one.config.objective.auxiliary}` finds no boxes to score; "
            "`detection` and `instance` do"
        )
    return one.branch


def _print_table(results: Sequence[BranchResult]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = results[0]
    scaled = f", long side {first.resize}" if first.resize else ""
    table = Table(title=f"{first.images} pictures of {first.dataset}{scaled} · {first.recognizer}")
    for column in ("training", "λ", "step", "bpp", "who looks", "AP", "AP50", "teacher AP"):
        table.add_column(column, justify="left" if column in ("training", "who looks") else "right")
    looks = {
        "latent": "branch at the latent",
        "decoded": "recognizer at the decoded picture",
        "uncompressed": "recognizer at the uncompressed one",
    }
    for result in results:
        head = [result.name, f"{result.training.lmbda:g}", str(result.step), f"{result.bpp:.3f}"]
        for view, who in looks.items():
            scores = result.scores[view]
            keys = ("ap", "ap50", "teacher_ap")
            table.add_row(*(head if view == "latent" else [""] * 4), who, *(figure(scores[k]) for k in keys))
        table.add_section()
    Console().print(table)
