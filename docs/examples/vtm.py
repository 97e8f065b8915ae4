"""An anchor of one's own: VTM, the reference software of VVC, all intra, 4:4:4.

taskpress anchor python:docs/examples/vtm.py:VTM:/opt/VVCSoftware_VTM --quality 27,32,37,42 … -o results

Quality is the QP. Build VTM first (vcgit.hhi.fraunhofer.de/jvet/VVCSoftware_VTM), in that folder.
"""

import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


class VTM:
    def __init__(self, qp, folder):
        self.qp, self.folder = qp, Path(folder)

    def encode(self, image):
        height, width = image.shape[:2]
        planes = np.asarray(Image.fromarray(image).convert("YCbCr")).transpose(2, 0, 1)
        with tempfile.TemporaryDirectory() as name:
            raw, coded = Path(name, "in.yuv"), Path(name, "out.vvc")
            raw.write_bytes(planes.tobytes())
            options = f"-q {self.qp} -wdt {width} -hgt {height} -f 1 -fr 1 -o /dev/null".split()
            options += ["--InputBitDepth=8", "--InputChromaFormat=444", "--ConformanceWindowMode=1"]
            settings = self.folder / "cfg" / "encoder_intra_vtm.cfg"
            self.run("EncoderAppStatic", "-c", settings, "-i", raw, "-b", coded, *options)
            return struct.pack("<HH", width, height) + coded.read_bytes()

    def decode(self, data):
        width, height = struct.unpack("<HH", data[:4])
        with tempfile.TemporaryDirectory() as name:
            coded, raw = Path(name, "in.vvc"), Path(name, "out.yuv")
            coded.write_bytes(data[4:])
            self.run("DecoderAppStatic", "-b", coded, "-o", raw, "-d", "8")
            planes = np.frombuffer(raw.read_bytes(), np.uint8).reshape(3, height, width)
        interleaved = planes.transpose(1, 2, 0).tobytes()
        return np.asarray(Image.frombytes("YCbCr", (width, height), interleaved).convert("RGB"))

    def run(self, program, *arguments):
        done = subprocess.run(
            [self.folder / "bin" / program, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout)[-300:])
