"""`import taskpress` is light."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.parametrize("name", ["__version__", "load"])
def test_importing_pulls_in_no_heavy_library(name: str) -> None:
    code = (
        f"import sys, taskpress; taskpress.{name}; "
        "print(*{'lightning', 'matplotlib', 'torchvision', 'onnx2torch'} & set(sys.modules)); "
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    heavy, torch = out.splitlines()
    assert heavy == ""
    assert torch == str(name == "load")


def test_loading_a_codec_leaves_torchs_compiler_alone() -> None:
    """Which would take longer than all else."""
    code = "import sys, taskpress; taskpress.load('mse-n32'); print('torch._dynamo' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "False"


def test_unknown_names_are_attribute_errors() -> None:
    import taskpress

    assert {"load", "Codec", "__version__"} <= set(dir(taskpress))
    with pytest.raises(AttributeError, match="laod"):
        taskpress.laod  # noqa: B018


WITHOUT = """
import re, sys
from importlib.abc import MetaPathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def plain(name):
    return re.match(r"[\\w.-]+", name)[0].lower().replace("_", "-")

def needed(package, found):
    '''The package and all that it needs without extras.'''
    if package not in found:
        found.add(package)
        try:
            for one in requires(package) or []:
                if "extra ==" not in one:
                    needed(plain(one), found)
        except PackageNotFoundError:
            pass  # for another platform
    return found

core = needed("taskpress", set())
absent = {
    module
    for module, packages in packages_distributions().items()
    if not any(plain(package) in core for package in packages)
}
assert {"lightning", "torchvision", "matplotlib", "onnx", "faster_coco_eval"} <= absent, absent

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from taskpress.cli.app import main
main()
"""


def without_extras(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line where nothing but the core dependencies is installed."""
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_coding_needs_the_core_dependencies_alone(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (200, 100, 50)).save(tmp_path / "a.png")
    for arguments in (
        ("encode", "mse-n32", tmp_path / "a.png", "-o", tmp_path),
        ("decode", tmp_path / "a.tpc", "-o", tmp_path / "decoded"),
        ("info", tmp_path / "a.tpc"),
        ("train", "--help"),
    ):
        outcome = without_extras(*arguments)
        assert outcome.returncode == 0, outcome.stderr
    assert Image.open(tmp_path / "decoded" / "a.png").size == (40, 30)


def test_commands_that_need_more_say_what_to_install(tmp_path: Path) -> None:
    outcome = without_extras("train", "quick", "-o", tmp_path / "run")
    assert outcome.returncode == 1
    assert "is not installed" in outcome.stderr and "taskpress[train]" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
