"""The documented example of a user's own recognizer works, and what does not says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from taskpress.coding.codec import Codec
from taskpress.coding.images import to_tensor
from taskpress.datasets.folder import ImageFolder
from taskpress.datasets.scenes import Scenes
from taskpress.errors import RecognizerError
from taskpress.evaluation.rate_accuracy import CodecCoder, evaluate
from taskpress.recognition.named import load_recognizer
from taskpress.training.config import Preset
from taskpress.training.run import train_experiment

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ssdlite.py"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("ssdlite") / "ssdlite.pth"
    torch.save(ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict(), weights)
    return f"python:{EXAMPLE}:SSDLite:{weights}"


def test_the_example_is_frozen_and_its_loss_falls_along_the_images_gradient(spec: str) -> None:
    recognizer = load_recognizer(spec)
    assert isinstance(recognizer, torch.nn.Module)
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    sample = Scenes("test", 1)[0]
    image = to_tensor(sample.image).requires_grad_()
    losses = []
    for _ in range(4):
        loss = torch.stack(list(recognizer.loss([image], [sample.annotations]).values())).sum()
        (gradient,) = torch.autograd.grad(loss, image)
        losses.append(loss.item())
        image = (image - 0.5 * gradient / gradient.norm()).detach().requires_grad_()
    assert losses == sorted(losses, reverse=True)
    assert all(torch.equal(value, before[key]) for key, value in recognizer.state_dict().items())


def test_the_example_trains_a_codec_and_judges_it(spec: str, tmp_path: Path) -> None:
    preset = Preset.model_validate(
        {
            "name": "own",
            "recognizer": spec,
            "codec": {"channels": 8},
            "data": {"sources": ["scenes:2"], "patch": 64},
            "objective": {"task": "both"},
            "optimizer": {"steps": 2},
            "lambdas": [1.0],
            "arms": {"task+aux": {"alpha": 0.1}},
            "trainer": {"accelerator": "cpu"},
        }
    )
    (codec,) = train_experiment(preset, tmp_path)
    coder = CodecCoder(Codec.load(codec), "task+aux", codec.stem)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(Scenes("test", 1)[0].image).save(pictures / "scene.png")
    result = evaluate(coder, ImageFolder(pictures), load_recognizer(spec))
    assert result.recognizer == "ssdlite" and result.bpp > 0


def test_a_file_may_hold_dataclasses(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from taskpress.recognition.named import load_recognizer\n"
        "@dataclasses.dataclass\n"
        "class Config:\n    size: int = 3\n"
        "def own():\n    return load_recognizer('scenes')\n"
    )
    assert load_recognizer(f"python:{tmp_path}/own.py:own").name == "scenes"


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("", "own.py", "write python:FILE.py:CLASS"),
        ("", "absent.py:Own", "there is no file"),
        ("x = 1 /", "own.py:Own", "SyntaxError"),
        ("", "own.py:Own", "no attribute 'Own'"),
        (
            "class Own:\n    def __init__(self): raise OSError('no weights')",
            "own.py:Own",
            "OSError: no weights",
        ),
        (
            "class Own:\n    name = 'own'\n    def predict(self, images): ...",
            "own.py:Own",
            "it has no categories,",
        ),
    ],
)
def test_what_is_no_recognizer_says_why(text: str, spec: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(RecognizerError, match=message) as raised:
        load_recognizer(f"python:{tmp_path}/{spec}")
    assert "own.py" in str(raised.value) or "absent.py" in str(raised.value)


OWN = """
import torch
from torch import nn
from taskpress.recognition.named import load_recognizer
from taskpress.recognition.protocol import Task

class Own(nn.Module):
    name, task, fingerprint = "own", Task.DETECTION, "same"

    def __init__(self, argument=None):
        super().__init__()
        self.inner = load_recognizer("scenes")
        self.categories = self.inner.categories
        self.norm = nn.BatchNorm2d(3)

    def predict(self, images):
        self.norm(torch.stack(list(images)))
        return self.inner.predict(images)

    def pseudo_labels(self, images):
        return {labels}

    def loss(self, images, targets):
        {loss}

    def features(self, images):
        return self.inner.features(images)
"""


def own(
    folder: Path, labels: str = "self.predict(images)", loss: str = "return {'x': images[0].sum()}"
) -> str:
    text = OWN.replace("{labels}", labels).replace("{loss}", loss)
    (folder / "own.py").write_text(text)
    return f"python:{folder}/own.py:Own"


def test_a_fingerprint_that_cannot_be_set_says_so(tmp_path: Path) -> None:
    spec = own(tmp_path)
    file = tmp_path / "own.py"
    computed = "    fingerprint = property(lambda self: 'same')\n\n    def predict"
    file.write_text(file.read_text().replace("    def predict", computed))
    with pytest.raises(RecognizerError, match=r"own\.py.*fingerprint must be an attribute that can be set"):
        load_recognizer(spec)


def test_a_module_is_frozen_though_its_author_forgot(tmp_path: Path) -> None:
    recognizer = load_recognizer(own(tmp_path))
    assert isinstance(recognizer, torch.nn.Module)
    recognizer.predict([torch.rand(3, 64, 64)])
    assert not any(parameter.requires_grad for parameter in recognizer.parameters())
    assert torch.equal(recognizer.norm.running_mean, torch.zeros(3)), "statistics must not move"


def test_the_fingerprint_knows_the_code_and_the_argument(tmp_path: Path) -> None:
    """Else labels of one threshold would be taken from the cache for another."""
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1")
    found = []
    spec = own(tmp_path)
    found += [
        load_recognizer(one).fingerprint for one in (spec, f"{spec}:a", f"{spec}:b", f"{spec}:{weights}")
    ]
    weights.write_bytes(b"2")
    found.append(load_recognizer(f"{spec}:{weights}").fingerprint)
    found.append(load_recognizer(own(tmp_path, labels="self.predict(images)[:1]")).fingerprint)
    assert len(set(found)) == len(found)
    own(tmp_path)
    assert load_recognizer(spec).fingerprint == found[0]


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        ("self.predict(images)", "raise ValueError('no boxes')", "it raises ValueError: no boxes"),
        ("self.predict(images)", "return {'x': images[0].detach().sum()}", "no gradient at the image"),
        ("self.predict(images)", "return {'x': images[0].sum() / 0}", "not finite"),
        (
            "self.predict(images)",
            "return {'x': self.norm.weight.requires_grad_().sum()}",
            "the image is none",
        ),
        ("[{}]", "return {'x': images[0].sum()}", "no list of one Detections"),
    ],
)
def test_what_teaches_nothing_is_refused_before_anything_is_trained(
    labels: str, loss: str, message: str, tmp_path: Path
) -> None:
    preset = Preset.model_validate(
        {
            "name": "own",
            "recognizer": own(tmp_path, labels, loss),
            "codec": {"channels": 8},
            "data": {"sources": ["scenes:2"], "patch": 64},
            "start": {"lmbda": 0.01, "optimizer": {"steps": 1}},
            "optimizer": {"steps": 1},
            "lambdas": [1.0],
            "arms": {"task": {"alpha": 0.0}},
            "trainer": {"accelerator": "cpu"},
        }
    )
    with pytest.raises(RecognizerError, match=message):
        train_experiment(preset, tmp_path / "run")
    assert not (tmp_path / "run").exists()
