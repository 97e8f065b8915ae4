"""A user's own branch, by file: the documented one learns and trains a codec, and what does not says why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from taskpress.auxiliary.named import build_auxiliary, learns
from taskpress.coding.codec import Codec
from taskpress.detections import Detections
from taskpress.errors import ConfigError
from taskpress.training.config import Preset
from taskpress.training.restore import restore
from taskpress.training.run import train_experiment

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "heatmap.py"


def preset(branch: str, **arm: Any) -> Preset:
    return Preset.model_validate(
        {
            "name": "own",
            "recognizer": "scenes",
            "codec": {"channels": 8},
            "data": {"sources": ["scenes:2"], "patch": 64},
            "objective": {"task": "features"},
            "optimizer": {"steps": 2},
            "lambdas": [1.0],
            "arms": {"task+aux": {"alpha": 0.1, "auxiliary": branch} | arm},
            "trainer": {"accelerator": "cpu", "checkpoint_every": 1, "log_every": 1},
        }
    )


def test_the_example_learns_where_objects_are() -> None:
    torch.manual_seed(0)
    branch = build_auxiliary(f"python:{EXAMPLE}:Heatmap", 4, 3, width=16)
    target = Detections(
        torch.tensor([[16.0, 16, 48, 80], [64, 64, 128, 128]]), torch.tensor([0, 2]), torch.ones(2)
    )
    latent = torch.randn(1, 4, 8, 8)
    optimizer = torch.optim.Adam(branch.parameters(), 1e-2)
    for _ in range(80):
        loss = branch.loss(branch(latent), [target])["middles"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen = branch(latent)["middles"][0].sigmoid()
    highest = [divmod(int(seen[label].argmax()), 8) for label in (0, 2)]
    # Middles lie at pixels (48, 32) and (96, 96), each on the edges of cells of 16 pixels.
    assert highest[0][0] in (2, 3) and highest[0][1] in (1, 2)
    assert highest[1][0] in (5, 6) and highest[1][1] in (5, 6)
    assert seen[1].max() < 0.1


def test_the_example_trains_a_codec_and_is_known_by_its_code(tmp_path: Path) -> None:
    file = shutil.copy(EXAMPLE, tmp_path / "heatmap.py")
    branch = f"python:{file}:Heatmap"
    first = {"steps": 1, "batch": 1}
    train_experiment(preset(branch, auxiliary_first=first), tmp_path / "run", limit_steps=1)
    restored = restore(tmp_path / "run" / "aux-q1")
    assert type(restored.branch).__name__ == "Heatmap"
    learned = list((tmp_path / "run" / "branches").iterdir())
    with file.open("a") as end:
        end.write("# another weight, say\n")
    with pytest.raises(ConfigError, match=r"heatmap\.py:Heatmap is not what it was.* a recognizer or code"):
        train_experiment(preset(branch, auxiliary_first=first), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"heatmap\.py:Heatmap is not what it was"):
        restore(tmp_path / "run" / "aux-q1")
    # Nor does another code go on from what the first one learned alone.
    shutil.copytree(tmp_path / "run" / "branches", tmp_path / "other" / "branches")
    train_experiment(preset(branch, auxiliary_first=first), tmp_path / "other", limit_steps=1)
    assert len(list((tmp_path / "other" / "branches").iterdir())) == len(learned) + 1


OWN = """
import torch
from taskpress.auxiliary.branch import AuxiliaryBranch

class Own(AuxiliaryBranch):
    learns = "{learns}"

    def __init__(self, latent_channels, classes, stride, width, *rest):
        super().__init__()
        self.stride, self.rest = stride, rest
        self.layer = torch.nn.Conv2d(latent_channels, classes, 1)

    def forward(self, latent):
        return {"x": self.layer(latent)}

    def loss(self, output, targets):
        {loss}
"""


def own(folder: Path, loss: str = "return {'x': output['x'].sum()}", learning: str = "labels") -> str:
    (folder / "own.py").write_text(OWN.replace("{learns}", learning).replace("{loss}", loss))
    return f"python:{folder}/own.py:Own"


def test_layers_and_argument_come_last(tmp_path: Path) -> None:
    labels = build_auxiliary(own(tmp_path), 4, 3, layers=[5, 6])
    assert labels.rest == ()
    spec = own(tmp_path, learning="features") + ":three"
    assert learns(spec) == "features"
    assert build_auxiliary(spec, 4, 3, layers=[5, 6]).rest == ([5, 6], "three")


def test_a_file_is_run_once(tmp_path: Path) -> None:
    """Registries at its top would refuse a second time."""
    spec, ran = own(tmp_path), tmp_path / "ran"
    with (tmp_path / "own.py").open("a") as end:
        end.write(f"open({str(ran)!r}, 'a').write('x')\n")
    train_experiment(preset(spec), tmp_path / "run", limit_steps=1)
    assert ran.read_text() == "x"


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_settings_of_two_machines_are_the_same(alpha: float, tmp_path: Path) -> None:
    """Wherever the file lies, and of an arm without a branch whatever it says of one."""
    found = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        one = preset("detection", alpha=alpha, auxiliary=own(folder))
        (codec,) = train_experiment(one, folder / "run", limit_steps=1)
        found.append(Codec.load(codec).card["settings"])
    assert found[0] == found[1]


def test_layers_of_the_teacher_are_the_lesson(tmp_path: Path) -> None:
    loss = "return {'x': output['x'].mean() + sum(layer.mean() for layer in targets)}"
    train_experiment(preset(own(tmp_path, loss, "features")), tmp_path / "run", limit_steps=1)


@pytest.mark.parametrize(
    ("loss", "learning", "message"),
    [
        (
            "raise ValueError('no boxes')",
            "labels",
            "on the latent of a crop of 64 pixels it raises ValueError",
        ),
        ("return {'x': output['x'].detach().sum()}", "labels", "no gradient at the latent"),
        ("return {'x': output['x'].sum() / 0}", "labels", "not finite"),
        ("return {'x': output['x']}", "labels", "no dict of scalar tensors"),
        ("return output['x'].sum()", "labels", "no dict of scalar tensors"),
        ("return {}", "labels", "its loss has no terms"),
        ("targets[0].boxes[0].absent", "labels", "raises AttributeError"),
        ("return {'x': output['x'].sum()}", "heads", "must be 'labels' or 'features'"),
    ],
)
def test_what_teaches_nothing_is_refused_before_anything_is_trained(
    loss: str, learning: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        train_experiment(preset(own(tmp_path, loss, learning)), tmp_path / "run")
    assert "own.py:Own" in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Own:\n    pass", "no class derived from"),
        ("def Own(*given): pass", "no class derived from"),
        ("x = 1 /", "SyntaxError"),
        ("", "no attribute 'Own'"),
    ],
)
def test_what_is_no_branch_says_why(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        build_auxiliary(f"python:{tmp_path}/own.py:Own", 8, 5)
    with pytest.raises(ConfigError, match="there is no file"):
        build_auxiliary(f"python:{tmp_path}/absent.py:Own", 8, 5)
    with pytest.raises(ConfigError, match=r"write python:FILE\.py:CLASS"):
        build_auxiliary("python:own.py", 8, 5)
