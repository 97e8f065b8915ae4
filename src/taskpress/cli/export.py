"""`taskpress export`: a codec to give away, with a card that says how it was made and how good it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from taskpress.coding.files import codec_name
from taskpress.errors import ConfigError
from taskpress.own_code import argument_of


def export(
    codecs: Annotated[list[str], typer.Argument(metavar="CODEC...", help="Codec files or shipped names.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for NAME.safetensors and NAME.json.")
    ],
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Result files or folders of `evaluate`: their figures go onto the card."),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store float16; of float32 weights that makes another codec.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Another name; for one codec only.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace other codecs of the same name.")] = False,
) -> None:
    """Copy codecs into a folder, each with a card in JSON: data, command, seed, figures, versions.

    A result belongs to a codec by fingerprint: figures of other weights never get onto a card.

    Example: taskpress export runs/coco/codecs/*.safetensors --results results -o weights
    """
    from taskpress.coding.codec import Codec
    from taskpress.coding.files import atomic_write
    from taskpress.evaluation.comparison import find_results
    from taskpress.evaluation.result import Result

    if name is not None and len(codecs) > 1:
        raise ConfigError(f"--name {name}: one name for {len(codecs)} codecs; export them one by one")
    targets = {source: output / f"{name or codec_name(source)}.safetensors" for source in codecs}
    for target, count in Counter(targets.values()).items():
        if count > 1:
            clashing = " and ".join(source for source, found in targets.items() if found == target)
            raise ConfigError(f"{clashing} would all become {target}; export them apart, with --name")
    measured = [Result.read(path) for path in find_results(results or ())]
    output.mkdir(parents=True, exist_ok=True)
    for source, target in targets.items():
        codec = Codec.load(source)
        with TemporaryDirectory(prefix=".", dir=output) as drafts:
            draft = Path(drafts, target.name)
            codec.save(draft, half=half, card={**codec.card, "name": target.stem})
            shipped = Codec.load(str(draft))
            if target.exists() and not force:
                _check_replaceable(source, shipped.fingerprint, target)
            draft.replace(target)
        figures = [r.summary() for r in measured if r.codec_fingerprint == shipped.fingerprint]
        if measured and not figures:
            typer.echo(
                f"taskpress: {target}: no result is of these weights; its card has no figures", err=True
            )
        card = {**shipped.card, "fingerprint": shipped.fingerprint, "figures": figures}
        text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
        atomic_write(target.with_suffix(".json"), text.encode())
        typer.echo(target)


def _check_replaceable(source: str, fingerprint: str, target: Path) -> None:
    """ConfigError where writing `target` would lose a codec, and every file that was coded with it."""
    from taskpress.coding.codec import Codec

    file = Path(argument_of(source) or source)
    if file.exists() and target.samefile(file):
        raise ConfigError(f"{target}: would replace what it is made of; choose another folder with -o")
    if Codec.load(target).fingerprint != fingerprint:
        raise ConfigError(f"{target}: holds another codec; choose another folder with -o, or use --force")
