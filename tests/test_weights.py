"""What is shipped: small, complete, described, and without a trace of the auxiliary branch."""

from __future__ import annotations

import json
import re

import pytest

from taskpress.coding.checkpoints import SHIPPED, shipped_names
from taskpress.coding.codec import Codec
from taskpress.training.config import with_todays_names
from taskpress.training.objective_config import ObjectiveConfig

CODECS = shipped_names()
MB = 1_000_000


def test_sizes() -> None:
    sizes = {name: (SHIPPED / f"{name}.safetensors").stat().st_size for name in CODECS}
    assert sum(size for name, size in sizes.items() if name.startswith("scenes-")) <= 30 * MB
    assert sum(sizes.values()) <= 64 * MB
    assert (SHIPPED / "scenes-recognizer.safetensors").stat().st_size <= 8 * MB


@pytest.mark.parametrize("preset", ["scenes", "coco-yolox"])
def test_every_rate_is_there_with_and_without(preset: str) -> None:
    rates = {arm: [n for n in CODECS if re.fullmatch(rf"{preset}-{arm}-q\d", n)] for arm in ("task", "aux")}
    assert len(rates["task"]) == len(rates["aux"]) >= (4 if preset == "scenes" else 2)
    for without, aux in zip(rates["task"], rates["aux"], strict=True):
        pair = [Codec.load(name) for name in (without, aux)]
        cards = [codec.card for codec in pair]
        assert [card["arm"] for card in cards] == ["task", "task+aux"]
        for card in cards:  # a card older than a setting means its default
            card["config"] = with_todays_names(card["config"])
            card["config"]["objective"] = ObjectiveConfig(**card["config"]["objective"]).model_dump()
        alphas = [card["config"]["objective"].pop("alpha") for card in cards]
        assert alphas == [0.0, 1.0 if preset == "scenes" else 3.0]
        assert cards[0]["config"]["objective"]["auxiliary_first"] is None
        for card in cards:  # which branch it is and how it begins says nothing where there is none
            del card["config"]["objective"]["auxiliary_first"], card["config"]["objective"]["auxiliary"]
        for key in ("lmbda", "seed", "codec", "data", "optimizer", "objective", "recognizer"):
            assert cards[0]["config"][key] == cards[1]["config"][key], key
        assert all(card["steps"] == card["config"]["optimizer"]["steps"] for card in cards)
        shapes = [{key: value.shape for key, value in codec.state_dict().items()} for codec in pair]
        assert shapes[0] == shapes[1]
        assert pair[0].encoder_cost() == pair[1].encoder_cost()


@pytest.mark.parametrize("name", CODECS)
def test_cards_belong_to_the_weights(name: str) -> None:
    card = json.loads((SHIPPED / f"{name}.json").read_text())
    codec = Codec.load(name)
    assert card["fingerprint"] == codec.fingerprint
    assert card["name"] == name and card["command"].startswith("taskpress train ")
    assert card["config"]["seed"] in (1, 2) and card["config"]["data"]["sources"] and card["data"]
    assert card["figures"], "no figures were measured of these weights"
    assert all(figure["codec_fingerprint"] == codec.fingerprint for figure in card["figures"])
