"""`import taskpress` is light."""

import subprocess
import sys

import pytest


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
