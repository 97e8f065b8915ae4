"""Checkpoints in Detectron2's layout: every key reaches its place or an error, and nothing in them runs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from taskpress.errors import RecognizerError
from taskpress.recognition.coco_categories import COCO_CATEGORIES
from taskpress.recognition.detectron2_backbone import Architecture
from taskpress.recognition.detectron2_detector import load_detectron2
from taskpress.recognition.detectron2_rcnn import Detectron2RCNN
from taskpress.recognition.detectron2_weights import load_checkpoint, random_model

SMALL = Architecture(
    blocks=(1, 2, 2, 1), stem=8, groups=2, group_width=4, res2=16, pyramid=16, hidden=32, classes=5
)
CLASS_WEIGHT = "roi_heads.box_predictor.cls_score.weight"
CONSTANTS = {
    "pixel_mean": np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1),
    "pixel_std": np.array([57.375, 57.12, 58.395], np.float32).reshape(3, 1, 1),
    "proposal_generator.anchor_generator.cell_anchors.0": np.array(
        [
            [-22.627417, -11.3137085, 22.627417, 11.3137085],
            [-16.0, -16.0, 16.0, 16.0],
            [-11.3137085, -22.627417, 11.3137085, 22.627417],
        ],
        np.float32,
    ),
}


Shapes = dict[str, tuple[int, ...]]


def layout(
    depth: tuple[int, int, int, int] = (3, 4, 23, 3),
    stem: int = 64,
    cardinality: int = 32,
    base_width: int = 8,
    first: int = 256,
    fpn: int = 256,
    fc: int = 1024,
    classes: int = 80,
) -> Shapes:
    """Keys and shapes of faster_rcnn_X_101_32x8d_FPN_3x: ResNeXt-101 32×8d (Xie et al., table 1, with 32×8d),
    FPN (Lin et al., section 3), RPN with 3 anchors, a head of two fully connected layers."""
    shapes: Shapes = {}

    def conv(key: str, out: int, into: int, side: int) -> None:
        shapes[f"{key}.weight"] = (out, into, side, side)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{key}.norm.{part}"] = (out,)

    def layer(key: str, *shape: int) -> None:
        shapes[f"{key}.weight"] = shape
        shapes[f"{key}.bias"] = shape[:1]

    bottom = "backbone.bottom_up"
    conv(f"{bottom}.stem.conv1", stem, 3, 7)
    entering = stem
    for stage in (2, 3, 4, 5):
        leaving, middle = first * 2 ** (stage - 2), cardinality * base_width * 2 ** (stage - 2)
        for block in range(depth[stage - 2]):
            key = f"{bottom}.res{stage}.{block}"
            if block == 0:
                conv(f"{key}.shortcut", leaving, entering, 1)
            conv(f"{key}.conv1", middle, entering if block == 0 else leaving, 1)
            conv(f"{key}.conv2", middle, middle // cardinality, 3)
            conv(f"{key}.conv3", leaving, middle, 1)
        layer(f"backbone.fpn_lateral{stage}", fpn, leaving, 1, 1)
        layer(f"backbone.fpn_output{stage}", fpn, fpn, 3, 3)
        entering = leaving
    layer("proposal_generator.rpn_head.conv", fpn, fpn, 3, 3)
    layer("proposal_generator.rpn_head.objectness_logits", 3, fpn, 1, 1)
    layer("proposal_generator.rpn_head.anchor_deltas", 12, fpn, 1, 1)
    layer("roi_heads.box_head.fc1", fc, fpn * 49)
    layer("roi_heads.box_head.fc2", fc, fc)
    layer("roi_heads.box_predictor.cls_score", classes + 1, fc)
    layer("roi_heads.box_predictor.bbox_pred", 4 * classes, fc)
    return shapes


def small_layout() -> Shapes:
    """The layout of `SMALL`."""
    return layout((1, 2, 2, 1), 8, 2, 4, 16, 16, 32, 5)


def arrays(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights; variances positive."""
    rng = np.random.default_rng(seed)
    filled = {}
    for key, shape in shapes.items():
        values = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:], initial=1.0)), shape)
        filled[key] = (np.abs(values) + 0.5 if key.endswith("running_var") else values).astype(np.float32)
    return filled


def write_pickle(path: Path, model: Mapping[str, object], protocol: int = 3, numpy: int = 1) -> Path:
    """A .pkl as Detectron2's release script writes it; protocols up to 3 also as numpy 1 did."""
    data = pickle.dumps({"model": model, "__author__": "a test"}, protocol)
    if numpy == 1:
        assert protocol <= 3  # later ones state lengths
        data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    return arrays(small_layout())


def assert_holds(model: Detectron2RCNN, expected: dict[str, np.ndarray]) -> None:
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert state[key].dtype == torch.float32
        assert np.array_equal(state[key].numpy(), value), key


def test_the_layout_of_the_paper_is_the_model_s() -> None:
    with torch.device("meta"):
        model = Detectron2RCNN(Architecture())
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == layout()
    # As torchvision counts resnext101_32x8d, less its classifier.
    bottom = sum(
        np.prod(shape) for key, shape in layout().items() if "bottom_up" in key and "running" not in key
    )
    assert bottom == 88_791_336 - 2048 * 1000 - 1000


def test_a_full_size_checkpoint_reaches_every_place(tmp_path: Path) -> None:
    expected = {}
    for number, (key, shape) in enumerate(layout().items()):
        expected[key] = np.full(shape, number, np.float32)
        expected[key].flat[-1] = -1.0
    path = write_pickle(tmp_path / "model_final.pkl", expected | CONSTANTS)
    assert 400e6 < path.stat().st_size < 440e6
    assert_holds(load_checkpoint(path), expected)
    path.unlink()


@pytest.mark.parametrize(("protocol", "numpy"), [(2, 1), (3, 1), (2, 2), (3, 2), (4, 2), (5, 2)])
def test_pickles_of_every_age_are_read(
    small: dict[str, np.ndarray], protocol: int, numpy: int, tmp_path: Path
) -> None:
    path = write_pickle(tmp_path / "model.pkl", small, protocol, numpy)
    assert_holds(load_checkpoint(path, SMALL), small)


def test_torch_and_safetensors_files_give_the_same(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    state = {key: torch.from_numpy(value) for key, value in small.items()}
    torch.save(state, tmp_path / "state.pth")
    torch.save({"model": state, "iteration": 269999, "optimizer": {"state": {}}}, tmp_path / "training.pth")
    save_file(state, tmp_path / "state.safetensors")
    for name in ("state.pth", "training.pth", "state.safetensors"):
        assert_holds(load_checkpoint(tmp_path / name, SMALL), small)


def test_counters_and_right_constants_are_let_through_wrong_ones_are_not(
    small: dict[str, np.ndarray], tmp_path: Path
) -> None:
    counter = {"backbone.bottom_up.stem.conv1.norm.num_batches_tracked": np.array(5)}
    path = write_pickle(tmp_path / "model.pkl", small | CONSTANTS | counter)
    assert_holds(load_checkpoint(path, SMALL), small)
    for key, value in CONSTANTS.items():
        write_pickle(path, small | {key: value * 1.01})
        with pytest.raises(RecognizerError, match=key) as caught:
            load_checkpoint(path, SMALL)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_number_of_classes_is_the_file_s(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    shapes = layout((1, 2, 2, 1), 8, 2, 4, 16, 16, 32, classes=7)
    model = load_checkpoint(write_pickle(tmp_path / "model.pkl", arrays(shapes)), SMALL)
    assert model.architecture.classes == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.fpn_lateral3.bias": None}, "lacks backbone.fpn_lateral3.bias"),
        (
            {"roi_heads.mask_head.deconv.weight": np.zeros(3)},
            "roi_heads.mask_head.deconv.weight is not known",
        ),
        (
            {"backbone.bottom_up.res3.0.conv2.weight": np.zeros((16, 16, 3, 3))},
            r"res3.0.conv2.weight has shape \[16, 16, 3, 3\], this model needs \[16, 8, 3, 3\]",
        ),
        ({"roi_heads.box_predictor.bbox_pred.bias": np.zeros(16)}, r"bbox_pred.bias has shape \[16\]"),
        ({CLASS_WEIGHT: None}, f"lacks {CLASS_WEIGHT}"),
        ({CLASS_WEIGHT: np.array(["a", "b"])}, f"{CLASS_WEIGHT} is no array of numbers"),
        ({CLASS_WEIGHT: np.array([None, "b"], object)}, f"{CLASS_WEIGHT} is no array of numbers"),
        ({CLASS_WEIGHT: [1.0, 2.0]}, f"{CLASS_WEIGHT} is no array of numbers"),
        ({5: np.zeros(3)}, "one of its weights is called 5"),
    ],
)
def test_what_does_not_fit_is_named(
    small: dict[str, np.ndarray], change: dict[object, object], message: str, tmp_path: Path
) -> None:
    merged: dict[object, object] = {**small, **change}
    model = {key: value for key, value in merged.items() if value is not None}
    path = write_pickle(tmp_path / "model.pkl", model)  # type: ignore[arg-type]
    with pytest.raises(RecognizerError, match=message) as caught:
        load_checkpoint(path, SMALL)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_files_are_refused_in_one_line(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "model.pkl", small)
    whole = path.read_bytes()
    pieces = [whole[: len(whole) * part // 7] for part in range(7)]
    others = [b"PK\x03\x04", b"\x80\x02 nonsense", b"{}", pickle.dumps([1, 2]), pickle.dumps({"model": 3})]
    others += [pickle.dumps({"blobs": {"conv1_w": np.zeros(3)}})]
    for content in pieces + others:
        path.write_bytes(content)
        with pytest.raises(RecognizerError) as caught:
            load_checkpoint(path, SMALL)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(RecognizerError, match="name a file that exists"):
        load_checkpoint(tmp_path / "absent.pkl", SMALL)


def test_weights_must_be_named_and_random_ones_are_asked_for() -> None:
    with pytest.raises(RecognizerError, match=r"fasterrcnn-x101-fpn:FILE .* fasterrcnn-x101-fpn:random"):
        load_detectron2("fasterrcnn-x101-fpn", None)
    first, again, other = (random_model(SMALL, seed) for seed in (0, 0, 1))
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.state_dict()[CLASS_WEIGHT], other.state_dict()[CLASS_WEIGHT])
    assert len(COCO_CATEGORIES) == Architecture().classes
