"""Presets: what is shipped is valid, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskpress.errors import ConfigError
from taskpress.training.config import expand
from taskpress.training.presets import load_preset, shipped_presets

MINIMAL = """
name: mine
recognizer: scenes
data: {sources: ["scenes:4"]}
optimizer: {steps: 3}
lambdas: [0.1, 1.0]
arms:
  task: {alpha: 0}
  task+aux: {alpha: 0.1}
"""


@pytest.mark.parametrize("name", ["coco-yolox", "scenes", "quick"])
def test_shipped_presets_hold_a_pair_of_arms_that_differ_in_the_auxiliary_loss_alone(name: str) -> None:
    assert name in shipped_presets()
    runs = [run for run in load_preset(name).runs() if run.arm != "start"]
    without = [run for run in runs if run.arm == "task"]
    aux = [run for run in runs if run.arm == "task+aux"]
    assert len(without) == len(aux) > 0
    for a, b in zip(without, aux, strict=True):
        alpha = {"quick": 0.1, "scenes": 1.0, "coco-yolox": 3.0}[name]
        assert (a.objective.alpha, b.objective.alpha) == (0.0, alpha)
        named = {"name", "arm", "objective"}
        assert a.model_dump(exclude=named) == b.model_dump(exclude=named)
        own = {"alpha": alpha}
        own |= {name: getattr(b.objective, name) for name in ("auxiliary", "auxiliary_first")}
        assert a.objective.model_copy(update=own) == b.objective


def test_names_of_trainings_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    preset = load_preset(
        str(path), ["optimizer.steps=7", "codec.channels=24", "arms.mse={task: none, mse: 1.0}"]
    )
    runs = preset.runs()
    assert [run.name for run in runs] == [
        f"mine-{arm}-q{q}" for arm in ("task", "aux", "mse") for q in (1, 2)
    ]
    assert [run.short_name for run in runs][:3] == ["task-q1", "task-q2", "aux-q1"]
    assert {run.optimizer.steps for run in runs} == {7}
    assert {run.codec.channels for run in runs} == {24}
    assert [run.lmbda for run in runs if run.arm == "mse"] == [0.1, 1.0]


def test_the_shipped_start_is_made_by_a_preset() -> None:
    (only,) = load_preset("mse").runs()
    assert (only.objective.task, only.objective.mse, only.recognizer) == ("none", 1.0, None)
    assert only.codec.init is None and only.codec.channels == 48


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("objectiv.alpha=1", ["objectiv", "objective"]),
        ("objective.alfa=1", ["objective.alfa", "alpha"]),
        ("optimizer.learning_rat=1", ["optimizer.learning_rat", "learning_rate"]),
        ("data.patch=100", ["data.patch", "64"]),
        ("optimizer.steps=-1", ["optimizer.steps"]),
        ("arms.task.alpah=1", ["alpah", "alpha"]),
        ("nonsense", ["nonsense", "key=value"]),
        ("name.deeper=1", ["name.deeper"]),
        ("recognizer=null", ["recognizer"]),
        ("lambdas=[1.0, 0.1]", ["lambdas", "[1.0, 0.1]", "increasing"]),
        ("lambdas=[0.1, 0.1]", ["lambdas", "[0.1, 0.1] has a λ twice"]),
        ("lambdas=[0.1, -1.0]", ["lambdas.1", "greater than 0"]),
        ("rates=[0.1]", ["`rates` is called `lambdas`"]),
        ("arms.task.rates=[0.1]", ["arms.task", "`rates` is called `lambdas`"]),
        ("start={optimizer: {steps: 3}}", ["start", "lmbda or lambdas"]),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(tmp_path: Path, setting: str, names: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(ConfigError) as caught:
        load_preset(str(path), [setting])
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message


def test_a_preset_of_before_says_what_is_called_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL.replace("lambdas:", "rates:"))
    with pytest.raises(ConfigError, match="`rates` is called `lambdas`"):
        load_preset(str(path))
    path.write_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"unknown key `optimizer.rate`.*learning_rate"):
        load_preset(str(path), ["optimizer.rate=0.1"])


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean scenes"):
        load_preset("scene")


@pytest.mark.parametrize("content", [b"", b"- a\n", b"a: [1", b"\xff\xfe\x00"])
def test_a_file_that_is_no_preset(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_preset(str(path))


def test_environment_variables_are_expanded_where_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKPRESS_DATA", "/pictures")
    assert expand("${TASKPRESS_DATA}/coco") == "/pictures/coco"
    monkeypatch.delenv("TASKPRESS_DATA")
    with pytest.raises(ConfigError, match="TASKPRESS_DATA"):
        expand("${TASKPRESS_DATA}/coco")


def test_arms_of_one_experiment_never_share_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    runs = load_preset(str(path), ["arms.mse={task: none, mse: 1.0}", "arms.task+mse={mse: 0.1}"]).runs()
    names = [run.short_name for run in runs if run.quality == 1]
    assert names == ["task-q1", "aux-q1", "mse-q1", "task-mse-q1"]


def test_the_preset_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "your-own.md").read_text()
    (tmp_path / "street.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    names = [run.name for run in load_preset(str(tmp_path / "street.yaml"), []).runs()]
    assert names[0] == "street-start" and names[-1] == "street-aux-q4"
