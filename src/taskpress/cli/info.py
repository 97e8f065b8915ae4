"""`taskpress info`: what a .tpc file or a codec is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from taskpress.cli.batch import printable
from taskpress.cli.measuring import AsJson


def info(
    file: Annotated[
        str, typer.Argument(help="A .tpc file, a codec file or a shipped codec's name; none: list those.")
    ] = "",
    codecs: Annotated[
        list[str] | None,
        typer.Option("--codec", help="Codec file that a .tpc file may be of, beside the shipped ones."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a file is: a coded picture (size, codec, bits) or a codec (architecture, cost, training)."""
    from taskpress.cli.bitstreams import is_bitstream
    from taskpress.coding.checkpoints import shipped_names
    from taskpress.datasets.folder import PICTURE_SUFFIXES
    from taskpress.errors import CodecError, ConfigError

    if file == "-":
        raise ConfigError("-: standard input is not looked into; give a file, or a codec's name")
    if not file:
        facts: dict[str, object] = {"shipped codecs": shipped_names()}
    elif is_bitstream(Path(file)):
        facts = _bitstream(Path(file), codecs or ())
    elif Path(file).is_file() and Path(file).suffix.lower() in PICTURE_SUFFIXES:
        raise CodecError(f"{file}: is a picture as it came; give one that is coded (.tpc), or a codec")
    else:
        facts = _codec(file)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = json.dumps(value)
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        typer.echo(printable(f"{name + ':':22} {shown}"))


def _bitstream(path: Path, codecs: Sequence[str]) -> dict[str, object]:
    from taskpress.cli.bitstreams import read_bitstream
    from taskpress.coding.bitstream import read_header
    from taskpress.coding.finder import CodecFinder
    from taskpress.errors import BitstreamError, UnknownCodecError

    data = read_bitstream(path)
    try:
        header = read_header(data)
    except BitstreamError as error:
        raise BitstreamError(f"{path}: {error}") from None
    try:
        name = CodecFinder(codecs).find(data)[0]
    except UnknownCodecError:
        name = "unknown; name it with --codec"
    return {
        "file": str(path),
        "size": f"{header.width}x{header.height}",
        "bytes": len(data),
        **({"tiles": f"{len(header.tiles)} of {header.side}x{header.side}"} if header.side else {}),
        "bpp": round(header.bits_per_pixel, 4),
        "codec": name,
        "codec fingerprint": header.fingerprint,
    }


def _codec(name: str) -> dict[str, object]:
    from taskpress.coding.codec import Codec
    from taskpress.coding.streams import reach_of

    codec = Codec.load(name)
    cost = codec.encoder_cost()
    own = codec.allocator_cost()
    in_strips = all(reach_of(part) is not None for part in (codec.model.g_a, codec.model.g_s))
    allocator = {}
    if codec.allocator is not None and own is not None:
        allocator = {"allocator": {**asdict(codec.allocator.settings), **own._asdict()}}
    return {
        "codec": name,
        "architecture": codec.architecture,
        "channels": codec.model.N,
        "latent channels": codec.latent_channels,
        "parameters": sum(p.numel() for p in codec.parameters()),
        "encoder parameters": cost.parameters,
        "encoder MACs per pixel": round(cost.macs_per_pixel),
        **allocator,
        "large pictures": "in strips" if in_strips else "whole, as its layers are not known",
        "fingerprint": codec.fingerprint,
        "card": codec.card,
    }
