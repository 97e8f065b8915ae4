import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taskpress.coding.allocation import AllocatorSettings
from taskpress.coding.codec import Codec
from taskpress.datasets.scenes import CATEGORIES
from taskpress.errors import CodecError, ConfigError, DataError, ImageError
from taskpress.evaluation.rate_accuracy import default_curve

from .conftest import ColourDetector, Squares, call, data_options


@pytest.fixture
def codec_file(tmp_path: Path) -> Path:
    path = tmp_path / "small-q1.safetensors"
    Codec.create("mean-scale-hyperprior", 8, 12).save(path)
    return path


def test_anchors_then_compare(world: Path) -> None:
    results = world / "results"
    for kind, qualities in (("webp", "40,80"), ("jpeg", "30, 80")):
        outcome = call("anchor", kind, "--quality", qualities, *data_options(world), "-o", results)
        assert outcome.exit_code == 0
        assert f"{kind}-q80" in outcome.stdout
    names = ("jpeg-q30", "jpeg-q80", "webp-q40", "webp-q80")
    expected = sorted(f"{name}{ending}" for name in names for ending in (".json", ".matches.npz"))
    assert sorted(path.name for path in results.iterdir()) == expected
    assert json.loads((results / "webp-q40.json").read_text())["fidelity"]["psnr"] > 20
    again = ["anchor", "webp", "--quality", "40", *data_options(world), "--no-fidelity", "-o", results]
    with pytest.raises(ConfigError, match=r"webp-q40\.json.*--skip.*--force"):
        call(*again)
    assert call(*again, "--skip", "--json").stdout == "[]\n"
    with pytest.raises(ConfigError, match=r"webp-q40\.json.*its resize is None, not 64.*--force"):
        call(*again, "--skip", "--resize", 64)
    assert json.loads((results / "webp-q40.json").read_text())["fidelity"] is not None
    call(*again, "--force")
    assert json.loads((results / "webp-q40.json").read_text())["fidelity"] is None
    outcome = call("compare", results, "-o", world / "out", "--anchor", "jpeg", "--json")
    printed = json.loads(outcome.stdout)
    assert printed["anchor"] == "jpeg"
    assert printed["accuracy_intervals"]["webp"]["teacher_ap"][0]["low"] >= 0
    assert [row["curve"] for row in printed["rows"]] == ["webp"]
    assert json.loads((world / "out" / "comparison.json").read_text()) == printed
    assert Image.open(world / "out" / "rd.png").size[0] > 500
    assert "rd.png" in call("compare", results, "-o", world / "out").stdout


def test_results_by_other_annotations_do_not_go_on(world: Path, codec_file: Path) -> None:
    """A curve of some points with AP and some without, or by other boxes, would be none."""
    images, labelled = data_options(world)[:2], data_options(world)[2:]
    recognizer = labelled[2:]
    anchor = ["anchor", "jpeg", "-o", world / "results", *images, *recognizer, "--no-fidelity"]
    call(*anchor, "--quality", "10")
    both = ["--quality", "10,40", "--skip"]
    with pytest.raises(ConfigError, match=r"jpeg-q10\.json.*its ap is not known, not 66\.7: by other ann"):
        call(*anchor, *both, *labelled[:2])
    call(*anchor, *both)
    truth = json.loads((world / "annotations.json").read_text())
    call(*anchor, "--quality", "10", "--force", *labelled[:2])
    truth["annotations"] = truth["annotations"][1:]
    (world / "annotations.json").write_text(json.dumps(truth))
    with pytest.raises(ConfigError, match=r"its ap is 66\.7, not .*--force"):
        call(*anchor, "--quality", "10,60", "--skip", *labelled[:2])
    evaluate = ["evaluate", codec_file, *data_options(world), "-o", world / "codecs", "--skip"]
    call(*evaluate)
    with pytest.raises(ConfigError, match="its tile is None, not 64"):
        call(*evaluate, "--tile", 64)


def test_results_of_other_pictures_do_not_go_on(world: Path) -> None:
    """Of one folder name, number and size; without annotations nothing else tells them apart."""
    anchor = [
        "anchor",
        "jpeg",
        "--images",
        world / "pictures",
        "--recognizer",
        "toy",
        "-o",
        world / "results",
    ]
    call(*anchor, "--quality", "10")
    call(*anchor, "--quality", "10,20", "--skip")
    Image.fromarray(np.full((64, 80, 3), 99, np.uint8)).save(world / "pictures" / "0.png")
    for quality in ("10,20", "10,30"):
        with pytest.raises(ConfigError, match=r"jpeg-q10\.json: is of other pictures.*--force"):
            call(*anchor, "--quality", quality, "--skip")
    Image.fromarray(Squares()[0].image).save(world / "pictures" / "0.png")
    Image.fromarray(np.full((64, 80, 3), 99, np.uint8)).save(world / "pictures" / "3.png")
    with pytest.raises(ConfigError, match="picture 3 "):
        call(*anchor, "--quality", "10,30", "--skip")


def test_evaluate_writes_one_file_and_prints_json(world: Path, codec_file: Path) -> None:
    output = world / "result.json"
    outcome = call(
        "evaluate", codec_file, *data_options(world), "--limit", 2, "--resize", 64, "--json", "-o", output
    )
    printed = json.loads(outcome.stdout)
    written = json.loads(output.read_text())
    assert printed == [{key: value for key, value in written.items() if key != "pictures"}]
    assert written["curve"] == "small"
    assert written["codec"] == "small-q1"
    assert written["codec_fingerprint"] == Codec.load(codec_file).fingerprint
    assert written["precision"] == "float32"
    assert written["encoder"]["parameters"] > 0
    assert written["encoder"]["macs_per_pixel"] > 0
    assert written["resize"] == 64
    assert written["images"] == 2
    assert written["bpp"] == sum(p["bits"] for p in written["pictures"]) / (2 * 64 * 51)


def test_scenes_need_no_files(world: Path, codec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SceneColours(ColourDetector):
        categories = CATEGORIES

    monkeypatch.setattr("taskpress.recognition.named.load_recognizer", lambda spec: SceneColours())
    output = world / "r.json"
    call(
        "evaluate", codec_file, "--images", "scenes", "--recognizer", "x", "--limit", 2,
        "--curve", "mine", "-o", output,
    )  # fmt: skip
    written = json.loads(output.read_text())
    assert (written["dataset"], written["images"], written["curve"]) == ("scenes-test", 2, "mine")


def test_allocation_writes_figure_and_numbers(world: Path, codec_file: Path) -> None:
    output = world / "figures" / "bits.png"
    outcome = call(
        "allocation", codec_file, world / "pictures" / "0.png", "--recognizer", "toy", "-o", output
    )
    assert "small-q1" in outcome.stdout
    assert "boxes: 1, 17.6 %" in outcome.stdout
    written = json.loads(output.with_suffix(".json").read_text())
    assert written["boxes"] == [[10, 20, 40, 50]]
    assert written["area_in_boxes"] == pytest.approx(900 / 5120)
    assert 0 < written["codecs"][0]["share_in_boxes"] < 1
    assert np.array(Image.open(output)).std() > 10


def test_a_codec_with_an_allocator_says_what_that_costs_and_shows_its_map(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    codec = Codec.create("mean-scale-hyperprior", 8, seed=1)
    codec.attach_allocator(AllocatorSettings("roi", 5, 8), seed=1)
    path, output, picture = world / "roi-q1.safetensors", world / "r.json", world / "pictures" / "0.png"
    codec.save(path, card={"arm": "roi"})
    call("evaluate", path, *data_options(world), "-o", output)
    encoder = json.loads(output.read_text())["encoder"]
    own = encoder["allocator"]
    assert own["ms"] > 0 and encoder["ms"] > 0
    assert (own["parameters"], own["macs_per_pixel"]) == codec.allocator_cost()
    assert (encoder["parameters"], encoder["macs_per_pixel"]) == codec.encoder_cost()
    # A map of middle levels alone is one word in every file.
    assert own["map_bpp"] == pytest.approx(32 / (64 * 80))
    call("evaluate", path, *data_options(world), "--tile", 64, "-o", world / "tiled.json")
    tiled = json.loads((world / "tiled.json").read_text())["encoder"]["allocator"]
    assert tiled["map_bpp"] == pytest.approx(2 * own["map_bpp"]), "one word in each of two tiles"
    assert f"{own['parameters']} · " in call("compare", output, "-o", world / "out").stdout
    told = json.loads(call("info", path, "--json").stdout)
    assert told["allocator"]["kind"] == "roi" and told["allocator"]["parameters"] == own["parameters"]
    plain = Codec.create("mean-scale-hyperprior", 8, seed=1)
    plain.save(world / "plain-q1.safetensors")
    sizes = []
    for name in (path, world / "plain-q1.safetensors"):
        call("allocation", name, picture, "-o", world / "bits.png")
        sizes.append(Image.open(world / "bits.png").size)
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] > 1.5 * sizes[1][1]


def test_curve_names() -> None:
    assert default_curve({"arm": "task+aux"}, "scenes-aux-q3") == "task+aux"
    assert default_curve({}, "scenes-aux-q3") == "scenes-aux"
    assert default_curve({}, "plain") == "plain"


def test_misuse_is_refused_before_anything_is_written(world: Path, codec_file: Path) -> None:
    output = world / "out"
    options = [*data_options(world), "-o", output]
    with pytest.raises(ConfigError, match="jpeg"):
        call("anchor", "jpgg", "--quality", "30", *options)
    with pytest.raises(ConfigError, match="20,30,40"):
        call("anchor", "jpeg", "--quality", "high", *options)
    with pytest.raises(ConfigError, match="whole numbers"):
        call("anchor", "jpeg", "--quality", ",", *options)
    with pytest.raises(ConfigError, match="folder"):
        call("anchor", "jpeg", "--quality", "30,40", *data_options(world), "-o", world / "one.json")
    (world / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made a folder"):
        call("anchor", "jpeg", "--quality", "30", *data_options(world), "-o", world / "file")
    with pytest.raises(ConfigError, match="--device nowhere"):
        call("evaluate", codec_file, *options, "--device", "nowhere")
    with pytest.raises(ConfigError, match="overwrite"):
        call("evaluate", codec_file, codec_file, *options)
    with pytest.raises(CodecError):
        call("evaluate", world / "annotations.json", *options)
    with pytest.raises(DataError, match="nowhere"):
        call("evaluate", codec_file, "--images", world / "nowhere", "--recognizer", "x", "-o", output)
    with pytest.raises(DataError, match="nowhere"):
        call("compare", world / "nowhere", "-o", output)
    with pytest.raises(ConfigError, match="picture"):
        call("allocation", codec_file, "-o", world / "a.png")
    (world / "pictures" / "2.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"2\.png"):
        call("evaluate", codec_file, *options)
    assert not output.exists()


def test_a_result_of_another_codec_of_that_name_is_not_taken_for_this_ones(
    world: Path, codec_file: Path
) -> None:
    """What `finish` writes is called as what it was made of."""
    output = world / "results"
    command = ["evaluate", codec_file, *data_options(world), "--limit", 1, "--no-fidelity", "-o", output]
    call(*command)
    codec = Codec.load(codec_file)
    with torch.no_grad():
        next(codec.model.parameters()).add_(0.01)
    finished = world / "finished" / codec_file.name
    finished.parent.mkdir()
    codec.save(finished)
    with pytest.raises(ConfigError, match=r"its codec fingerprint is .*--force"):
        call("evaluate", finished, *command[2:], "--skip")
    assert call(*command, "--skip", "--json").stdout == "[]\n"
