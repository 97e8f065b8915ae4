"""Label maps, class labels, and what scenes know about their pixels."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.datasets.classified import ClassifiedImages, labels_by_folder, read_labels
from taskpress.datasets.dataset import Dataset
from taskpress.datasets.label_maps import LabelMaps, _read_ids
from taskpress.datasets.scenes import CATEGORIES, WITH_BACKGROUND, Scenes
from taskpress.detections import Category, Detections, Instances
from taskpress.errors import ConfigError, DataError
from taskpress.evaluation.categories import BUILT_IN, class_names, map_categories
from taskpress.targets import UNCOUNTED, ClassScores, SemanticMap, Task

ANIMALS = (Category(3, "cat"), Category(300, "dog"))


def write_pair(folder: Path, name: str, ids: np.ndarray, mode: str | None = None) -> None:
    for part in ("pictures", "maps"):
        (folder / part).mkdir(exist_ok=True)
    Image.fromarray(np.zeros((*ids.shape, 3), np.uint8)).save(folder / "pictures" / f"{name}.jpg")
    image = Image.fromarray(ids)
    if mode == "P":
        image = Image.fromarray(ids.astype(np.uint8), "P")
        image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(folder / "maps" / f"{name}.png")


def test_label_maps_in_every_depth(tmp_path: Path) -> None:
    write_pair(tmp_path, "b", np.array([[0, 3, 255], [3, 3, 0]], np.uint8))
    write_pair(tmp_path, "a", np.array([[0, 300, 3]], np.uint16))
    write_pair(tmp_path, "c", np.array([[3, 0]], np.uint8), mode="P")
    Image.new("RGB", (5, 5)).save(tmp_path / "pictures" / "without-map.png")
    data = LabelMaps(tmp_path / "pictures", tmp_path / "maps", ANIMALS)
    assert isinstance(data, Dataset)
    assert (len(data), data.name, data.coco_ground_truth()) == (3, "pictures", None)
    maps = []
    for number, sample in enumerate(data[i] for i in range(3)):
        assert sample.id == number and isinstance(sample.annotations, SemanticMap)
        assert sample.annotations.labels.shape == sample.image.shape[:2]
        maps.append(sample.annotations.labels.tolist())
    no = UNCOUNTED
    assert maps == [[[no, 1, 0]], [[no, 0, no], [0, 0, no]], [[0, no]]]


def test_label_maps_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.array([[0, 4]], np.uint8))
    pictures, maps = tmp_path / "pictures", tmp_path / "maps"
    with pytest.raises(DataError, match=r"a\.png: id 4 is no category"):
        LabelMaps(pictures, maps, ANIMALS)[0]
    Image.new("L", (3, 1)).save(maps / "a.png")
    with pytest.raises(DataError, match=r"a\.png: is 3x1, its picture 2x1"):
        LabelMaps(pictures, maps, ANIMALS)[0]
    Image.new("RGB", (2, 1)).save(maps / "a.png")
    with pytest.raises(DataError, match=r"a\.png: .* this is RGB"):
        LabelMaps(pictures, maps, ANIMALS)[0]
    # A grey PNG of 4 bits, samples 1 and 2, which Pillow reads as 17 and 34.
    rows = zlib.compress(bytes([0, 0x12]))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    framed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    (maps / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    with pytest.raises(DataError, match=r"a\.png: a grey label map has 8 or 16 bits"):
        LabelMaps(pictures, maps, ANIMALS)[0]
    (maps / "a.png").write_bytes(b"PNG")
    with pytest.raises(DataError, match=r"a\.png: is no PNG"):
        LabelMaps(pictures, maps, ANIMALS)[0]
    (maps / "z.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 2 label maps .* z\.png"):
        LabelMaps(pictures, maps, ANIMALS)
    with pytest.raises(DataError, match="no label map"):
        LabelMaps(pictures, pictures, ANIMALS)
    with pytest.raises(DataError, match="0 categories"):
        LabelMaps(pictures, maps, ())


def test_cocos_semantic_maps_have_panoptic_ids(shared_data: Path) -> None:
    coco = shared_data / "coco"
    data = LabelMaps(coco / "val2017", coco / "semantic" / "val2017", map_categories("coco-panoptic"))
    assert len(data) == 97
    seen = torch.stack([torch.bincount(data[i].annotations.labels.long().flatten(), minlength=256)  # type: ignore[union-attr]
                        for i in range(20)]).sum(0)  # fmt: skip
    names = [data.categories[k].name for k in seen[:133].argsort(descending=True)[:12]]
    assert {"person", "tree-merged", "sky-other-merged"} <= set(names)


def test_category_lists(tmp_path: Path) -> None:
    panoptic = map_categories("coco-panoptic")
    assert len(panoptic) == len({c.id for c in panoptic}) == len({c.name for c in panoptic}) == 133
    assert [len(BUILT_IN[name]) for name in ("coco", "voc")] == [80, 21]
    file = tmp_path / "categories.json"
    for content in ([{"id": 3, "name": "cat"}], {"categories": [{"id": 3, "name": "cat"}]}):
        file.write_text(json.dumps(content))
        assert map_categories(str(file)) == (Category(3, "cat"),)
    for content, message in (
        ([], "a list"),
        ([{"id": "3"}], "no category"),
        ([{"id": 1, "name": "a"}] * 2, "twice"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            map_categories(str(file))
    with pytest.raises(ConfigError, match="coco-panoptic"):
        map_categories("cocopanoptic")
    file.write_text('{"n1": "dog"}')
    assert class_names(str(file)) == {"n1": "dog"}


def test_torchvisions_voc_names_are_ours() -> None:
    weights = pytest.importorskip("torchvision.models.segmentation").LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    names = ["background", *weights.meta["categories"][1:]]
    assert [category.name for category in BUILT_IN["voc"]] == names


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for file in ("n2/x.png", "n1/deep/y.png", "n1/z.png"):
        (tmp_path / "val" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "val" / file)
    return tmp_path


def test_maps_beside_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, "a", np.array([[3, 3]], np.uint8))
    picture = tmp_path / "pictures" / "a.jpg"
    picture.rename(tmp_path / "maps" / "a.jpg")
    (sample,) = LabelMaps(tmp_path / "maps", tmp_path / "maps", ANIMALS)
    assert sample.name == "a.jpg"
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 0)
        with pytest.raises(DataError, match=r"a\.png: is no PNG"):
            _read_ids(tmp_path / "maps" / "a.png")
    Image.new("RGB", (2, 1)).save(tmp_path / "maps" / "a.webp")
    with pytest.raises(DataError, match=r"a\.jpg and a\.webp: which of them"):
        LabelMaps(tmp_path / "maps", tmp_path / "maps", ANIMALS)


def test_classes_by_folder_or_list(classes: Path) -> None:
    (classes / "a.csv").write_text("file,label\nn2/x.png,n2\nn1/z.png,n1\n\nn1/deep/y.png , n1\n")
    (classes / "a.json").write_text(json.dumps({"n2/x.png": "n2", "n1/z.png": "n1"}))
    by_folder = labels_by_folder(classes / "val")
    assert by_folder == {"n1/deep/y.png": "n1", "n1/z.png": "n1", "n2/x.png": "n2"}
    assert read_labels(classes / "a.csv") == by_folder
    listed = read_labels(classes / "a.json")
    data = ClassifiedImages(classes / "val", listed, {"n1": "cat"})
    assert isinstance(data, Dataset)
    assert [c.name for c in data.categories] == ["cat", "n2"]
    found = [data[i].annotations for i in range(2)]
    assert [label.best for label in found if isinstance(label, ClassScores)] == [1, 0]
    assert [data[i].name for i in range(2)] == ["n2/x.png", "n1/z.png"]


def test_class_lists_that_do_not_fit_are_named(classes: Path) -> None:
    for text, message in (
        ("a,b,c\n", "row 1 has 3 cells"), ("", "lists no picture"), ("x,1\nx,2\n", "more than once"),
    ):  # fmt: skip
        (classes / "a.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read_labels(classes / "a.csv")
    (classes / "a.csv").write_text("x," + 200_000 * "1")
    with pytest.raises(DataError, match="not CSV"):
        read_labels(classes / "a.csv")
    (classes / "a.json").write_text('{"x": "1", "x": "2"}')
    with pytest.raises(DataError, match="more than once"):
        read_labels(classes / "a.json")
    (classes / "a.json").write_text("[1]")
    with pytest.raises(DataError, match="object of file and label"):
        read_labels(classes / "a.json")
    with pytest.raises(DataError, match=r"first: none\.png"):
        ClassifiedImages(classes / "val", {"none.png": "n1"})
    Image.new("RGB", (4, 4)).save(classes / "val" / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png: lies in no folder"):
        labels_by_folder(classes / "val")


def test_scenes_know_every_pixel_and_stay_the_same_pictures() -> None:
    plain, semantic, instance, mute = (
        Scenes("test", 4, 96, task=task)
        for task in (Task.DETECTION, Task.SEGMENTATION, Task.INSTANCE_SEGMENTATION, None)
    )
    for index in range(4):
        boxes, pixels = plain[index].annotations, semantic[index].annotations
        objects, masks = instance[index].annotations, plain.masks(index)
        assert isinstance(boxes, Detections) and isinstance(pixels, SemanticMap)
        assert isinstance(objects, Instances) and mute[index].annotations is None
        for other in (semantic, instance, mute):
            assert np.array_equal(other[index].image, plain[index].image)
        expected = np.zeros((96, 96), np.uint8)
        for mask, label in zip(masks, boxes.labels.tolist(), strict=True):
            expected[mask] = [c.name for c in WITH_BACKGROUND].index(CATEGORIES[label].name)
        assert np.array_equal(pixels.labels.numpy(), expected)
        assert np.array_equal(objects.masks.numpy(), masks)
        assert torch.equal(objects.boxes, boxes.boxes) and torch.equal(objects.labels, boxes.labels)
    assert semantic.categories == WITH_BACKGROUND and mute.categories == ()
    assert semantic.coco_ground_truth() is None and mute.coco_ground_truth() is None
    with pytest.raises(DataError, match="classifier"):
        Scenes("test", 4, task=Task.CLASSIFICATION)


def test_run_lengths_of_scenes_are_their_masks() -> None:
    coder = pytest.importorskip("pycocotools.mask")
    scenes = Scenes("test", 2, 96, task=Task.INSTANCE_SEGMENTATION)
    truth = scenes.coco_ground_truth()
    assert truth is not None
    masks = np.concatenate([scenes.masks(index) for index in range(2)])
    decoded = [coder.decode(annotation["segmentation"]) for annotation in truth["annotations"]]
    assert np.array_equal(np.array(decoded, bool), masks)
    boxed = Scenes("test", 2, 96).coco_ground_truth()
    assert boxed is not None
    without = [{k: v for k, v in a.items() if k != "segmentation"} for a in truth["annotations"]]
    assert without == boxed["annotations"]
