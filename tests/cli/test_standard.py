"""`-` in place of files: through pipes the same bytes go as through folders."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taskpress.cli.app import main
from taskpress.coding.codec import Codec


class Binary(io.TextIOWrapper):
    """A standard stream as programs have it in a pipe."""

    terminal = False

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content))

    def isatty(self) -> bool:
        return self.terminal

    @property
    def content(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]


Piped = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Piped:
    """Runs `taskpress ARGUMENT...` in a pipe: exit code, standard output, standard error."""

    def run(*arguments: object, given: bytes = b"") -> tuple[int, bytes, str]:
        out = Binary()
        monkeypatch.setattr(sys, "argv", ["taskpress", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", Binary(given))
        monkeypatch.setattr(sys, "stdout", out)
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0
        return code, out.content, capsys.readouterr().err

    return run


def test_there_and_back(piped: Piped, codec_file: Path, pictures: Path, tmp_path: Path) -> None:
    picture = (pictures / "rgb.png").read_bytes()
    code, coded, told = piped("encode", codec_file, "-", "-o", "-", given=picture)
    codec = Codec.load(codec_file)
    with Image.open(pictures / "rgb.png") as image:
        wanted = codec.encode(image)
    assert (code, coded) == (0, wanted) and "50x70" in told
    code, decoded, told = piped("decode", "-", "--codec", codec_file, "-o", "-", given=coded)
    assert code == 0 and "50x70" in told
    with Image.open(io.BytesIO(decoded)) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), codec.decode(coded, as_="numpy"))
    assert list(tmp_path.glob("-*")) == []


def test_a_pipe_on_one_side(piped: Piped, codec_file: Path, pictures: Path, tmp_path: Path) -> None:
    picture = (pictures / "rgb.png").read_bytes()
    target = tmp_path / "new" / "a.tpc"
    code, out, _ = piped("encode", codec_file, "-", "-o", target, given=picture)
    assert code == 0 and b"a.tpc" in out
    assert piped("encode", codec_file, pictures / "rgb.png", "-o", "-")[1] == target.read_bytes()
    code, decoded, _ = piped("decode", target, "--codec", codec_file, "-o", "-")
    assert code == 0 and decoded.startswith(b"\x89PNG")


def test_what_a_pipe_brings_may_be_bad(piped: Piped, codec_file: Path) -> None:
    for given, message in ((b"", "is empty"), (b"x" * 50, "is not a picture")):
        code, out, told = piped("encode", codec_file, "-", "-o", "-", given=given)
        assert (code, out) == (1, b"") and f"taskpress: standard input: {message}" in told
    code, out, told = piped("decode", "-", "--codec", codec_file, "-o", "-", given=b"x" * 50)
    assert (code, out) == (1, b"") and "taskpress: standard input: " in told


def test_what_does_not_go_with_pipes(piped: Piped, codec_file: Path, pictures: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((pictures, "-o", "-"), "one file goes to standard output, not 3"),
        (("-", "-o", tmp_path), "standard input has no name"),
        (("-", pictures, "-o", tmp_path), "standard input has no name"),
        (("-", "-o", "-", "--json"), "--json: does not go with -o -"),
        (("-", "-o", "-", "--skip"), "--skip: does not go with -o -"),
    ):
        code, out, told = piped("encode", codec_file, *arguments)
        assert (code, out) == (2, b"") and message in told, told


def test_a_terminal_gets_no_bytes(
    piped: Piped, codec_file: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Binary, "terminal", True)
    code, out, told = piped("encode", codec_file, pictures / "rgb.png", "-o", "-")
    assert (code, out) == (2, b"") and "is a terminal" in told


def test_nothing_is_awaited_from_a_terminal(
    piped: Piped, codec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Binary, "terminal", True)
    code, _, told = piped("encode", codec_file, "-", "-o", tmp_path / "a.tpc")
    assert code == 2 and "nothing is sent to standard input" in told
    assert not (tmp_path / "a.tpc").exists()


def test_who_reads_may_have_ended(
    piped: Piped, codec_file: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(Binary, "buffer", Closed())
    code, _, told = piped("encode", codec_file, pictures / "rgb.png", "-o", "-")
    assert code == 1 and "taskpress: standard output cannot be written (Broken pipe)" in told


def test_a_folder_of_that_name_is_no_pipe(
    piped: Piped, codec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _, told = piped("encode", codec_file, "-", "-o", "a.tpc")
    assert code == 1 and "standard input: is empty" in told
