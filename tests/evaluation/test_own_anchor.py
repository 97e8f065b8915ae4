"""Anchors of a user's own, by file; the documented one needs VTM, for which stand-ins take its arguments."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from taskpress.errors import ConfigError
from taskpress.evaluation.own_anchor import own_anchors

from .conftest import call, data_options

PPM = """
import io
import numpy as np
from PIL import Image

class PPM:
    def __init__(self, quality, argument="0"):
        self.step = quality + int(argument)

    def encode(self, image):
        file = io.BytesIO()
        Image.fromarray(image // self.step * self.step).save(file, "PPM")
        return file.getvalue()

    def decode(self, data):
        return np.asarray(Image.open(io.BytesIO(data)))
"""


def test_an_anchor_of_ones_own(world: Path) -> None:
    own, results = world / "ppm.py", world / "results"
    own.write_text(PPM)
    call("anchor", f"python:{own}:PPM:1", "--quality", "150,0", *data_options(world), "-o", results)
    lossless, coarse = (json.loads((results / f"ppm-q{quality}.json").read_text()) for quality in (0, 150))
    # Three bytes a pixel and a header.
    assert 24 < lossless["bpp"] < 24.1 and lossless["curve"] == "ppm"
    assert lossless["teacher_ap"] == 100 and coarse["teacher_ap"] < 100
    again = ["anchor", f"python:{own}:PPM:1", "--quality", "0", *data_options(world), "-o", results, "--skip"]
    assert call(*again, "--json").stdout == "[]\n"
    again[1] = f"python:{own}:PPM:2"
    with pytest.raises(ConfigError, match=r"ppm-q0\.json: is of another measurement \(its code is"):
        call(*again)
    for text, message in (
        (
            PPM.replace("return file.getvalue()", "return 'text'"),
            "must give the file's bytes, not str",
        ),
        (PPM.replace("return file.getvalue()", "return b''"), "file's bytes, not none"),
        (PPM.replace("np.asarray(", "1.0 * np.asarray("), r"must give uint8 RGB \[H, W, 3\], not float64"),
        (PPM.replace("np.asarray(", "absent("), r"\.png: python.*quality 1: decode raises NameError"),
        (PPM.replace("encode", "compress"), "PPM is no coder: it has no encode"),
        (PPM.replace("class", "klass"), "SyntaxError"),
    ):
        own.write_text(text)
        with pytest.raises(ConfigError, match=message):
            call("anchor", f"python:{own}:PPM", "--quality", "1", *data_options(world), "-o", world / "other")


VTM = """#!{python}
# Keeps the pictures as they are, and says that it was asked as VTM wants to be asked.
import sys
given = dict(zip(sys.argv[1:], sys.argv[2:]))
if sys.argv[0].endswith("EncoderAppStatic"):
    raw = open(given["-i"], "rb").read()
    assert len(raw) == 3 * int(given["-wdt"]) * int(given["-hgt"]) and given["-f"] == "1"
    assert open(given["-c"]).read() == "intra"
    assert "--InputChromaFormat=444" in sys.argv
    if given["-q"] == "99":
        sys.exit("QP exceeds its range")
    open(given["-b"], "wb").write(raw)
else:
    assert given["-d"] == "8"
    open(given["-o"], "wb").write(open(given["-b"], "rb").read())
"""


def test_the_example_of_vtm_moves_pictures_through_its_programs(tmp_path: Path) -> None:
    for folder in ("bin", "cfg"):
        (tmp_path / folder).mkdir()
    (tmp_path / "cfg" / "encoder_intra_vtm.cfg").write_text("intra")
    for name in ("EncoderAppStatic", "DecoderAppStatic"):
        program = tmp_path / "bin" / name
        program.write_text(VTM.replace("{python}", sys.executable))
        program.chmod(0o755)
    example = Path(__file__).parents[2] / "docs" / "examples" / "vtm.py"
    coder, wrong = own_anchors(f"python:{example}:VTM:{tmp_path}", [32, 99])
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = coder.encode(image)
    assert len(data) == 4 + image.size and coder.name == "vtm-q32"
    # YCbCr of 8 bits and back.
    assert np.abs(coder.decode(data).astype(int) - image).max() <= 3
    with pytest.raises(ConfigError, match="quality 99: encode raises RuntimeError: QP exceeds its range"):
        wrong.encode(image)
