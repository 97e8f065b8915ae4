"""Detectron2's Faster R-CNN against torchvision's with the same weights: backbone, pyramid, detections."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from taskpress.recognition.detectron2_backbone import STRIDES, Architecture
from taskpress.recognition.detectron2_boxes import ANCHOR_SIDES, grid_anchors, pool
from taskpress.recognition.detectron2_rcnn import Detectron2RCNN
from taskpress.recognition.detectron2_weights import random_model

SMALL = Architecture(
    blocks=(1, 2, 2, 1), stem=64, groups=4, group_width=4, res2=256, pyramid=16, hidden=32, classes=5
)


@pytest.fixture(scope="module")
def model() -> Detectron2RCNN:
    return make(SMALL)


def make(architecture: Architecture) -> Detectron2RCNN:
    """Random, its BatchNorm far from the identity."""
    model = random_model(architecture, seed=4).eval()
    chance = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if name.endswith(("norm.bias", "running_mean")):
            value.normal_(0, 0.1, generator=chance)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=chance)
    return model


def peer_backbone(model: Detectron2RCNN) -> nn.Module:
    """torchvision's ResNet and feature pyramid with the model's weights."""
    state = model.backbone.state_dict()
    numbers = model.architecture
    body = ResNet(
        Bottleneck, list(numbers.blocks), groups=numbers.groups, width_per_group=numbers.group_width
    )
    body.fc = nn.Identity()  # type: ignore[assignment]
    theirs = {}

    def put(ours: str, conv: str, norm: str) -> None:
        theirs[f"{conv}.weight"] = state[f"bottom_up.{ours}.weight"]
        for part in ("weight", "bias", "running_mean", "running_var"):
            theirs[f"{norm}.{part}"] = state[f"bottom_up.{ours}.norm.{part}"]

    put("stem.conv1", "conv1", "bn1")
    for stage, count in enumerate(numbers.blocks, start=1):
        for block in range(count):
            for number in "123":
                put(
                    f"res{stage + 1}.{block}.conv{number}",
                    f"layer{stage}.{block}.conv{number}",
                    f"layer{stage}.{block}.bn{number}",
                )
        put(f"res{stage + 1}.0.shortcut", f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1")
    missing = body.load_state_dict(theirs, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    pyramid = FeaturePyramidNetwork([256, 512, 1024, 2048], numbers.pyramid, LastLevelMaxPool())
    pyramid.load_state_dict(
        {
            f"{kind}.{number - 2}.0.{part}": state[f"fpn_{ours}{number}.{part}"]
            for kind, ours in (("inner_blocks", "lateral"), ("layer_blocks", "output"))
            for number in (2, 3, 4, 5)
            for part in ("weight", "bias")
        }
    )
    return PeerBackbone(body.eval(), pyramid)


class PeerBackbone(nn.Module):
    out_channels = 16

    def __init__(self, body: ResNet, pyramid: nn.Module) -> None:
        super().__init__()
        self.body, self.pyramid = body, pyramid

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        x = self.body.maxpool(self.body.relu(self.body.bn1(self.body.conv1(x))))
        stages = OrderedDict()
        for number in range(1, 5):
            x = self.body.get_submodule(f"layer{number}")(x)
            stages[str(number - 1)] = x
        return self.pyramid(stages)


def test_backbone_and_pyramid_are_torchvisions_with_the_same_weights(model: Detectron2RCNN) -> None:
    check_backbone(model)


@pytest.mark.slow
def test_so_are_those_of_resnext101_32x8d() -> None:
    check_backbone(make(Architecture()))


def check_backbone(model: Detectron2RCNN) -> None:
    canvas = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = list(peer_backbone(model)(canvas).values())
        got = model.backbone(canvas)
    assert [tuple(level.shape[2:]) for level in got] == [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


class PeerPool(nn.Module):
    """torchvision's own pooling is not the aligned one; `pool` is held against numpy above."""

    def forward(self, levels: dict[str, Tensor], boxes: list[Tensor], _: object) -> Tensor:
        return pool(list(levels.values())[:4], STRIDES[:4], boxes)


def test_detections_are_those_of_torchvisions_faster_rcnn_with_the_same_weights(
    model: Detectron2RCNN,
) -> None:
    state = model.state_dict()
    anchors = AnchorGenerator(tuple((int(side),) for side in ANCHOR_SIDES), ((0.5, 1.0, 2.0),) * 5)
    peer = TorchvisionFasterRCNN(
        peer_backbone(model),
        rpn_anchor_generator=anchors,
        box_head=TwoMLPHead(16 * 49, 32),
        box_predictor=FastRCNNPredictor(32, 6),
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_test=1000,
    ).eval()
    peer.roi_heads.box_roi_pool = PeerPool()
    # torchvision rounds anchors to whole pixels.
    anchors.cell_anchors = [grid_anchors((1, 1), 1, side, "cpu") for side in ANCHOR_SIDES]
    moved = {
        "rpn.head.conv.0.0": "proposal_generator.rpn_head.conv",
        "rpn.head.cls_logits": "proposal_generator.rpn_head.objectness_logits",
        "rpn.head.bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
        "roi_heads.box_head.fc6": "roi_heads.box_head.fc1",
        "roi_heads.box_head.fc7": "roi_heads.box_head.fc2",
    }
    theirs = {f"{a}.{part}": state[f"{b}.{part}"] for a, b in moved.items() for part in ("weight", "bias")}
    for part in ("weight", "bias"):
        # torchvision counts background first and has a box for it.
        scores = state[f"roi_heads.box_predictor.cls_score.{part}"]
        boxes = state[f"roi_heads.box_predictor.bbox_pred.{part}"]
        theirs[f"roi_heads.box_predictor.cls_score.{part}"] = torch.cat([scores[-1:], scores[:-1]])
        theirs[f"roi_heads.box_predictor.bbox_pred.{part}"] = torch.cat([torch.zeros_like(boxes[:4]), boxes])
    assert not peer.load_state_dict(theirs, strict=False).unexpected_keys
    peer.transform.min_size, peer.transform.max_size = (120,), 150
    peer.transform.image_mean, peer.transform.image_std = [0.0] * 3, [1.0] * 3

    pictures = torch.randn(2, 3, 120, 150, generator=torch.Generator().manual_seed(7)) * 2
    canvas = nn.functional.pad(pictures, (0, 10, 0, 8))
    with torch.no_grad():
        wanted = peer(list(pictures))
        got = model(canvas, [(120, 150)] * 2)
    for ours, peers in zip(got, wanted, strict=True):
        assert len(ours) > 10 and len(set(ours.labels.tolist())) > 1
        torch.testing.assert_close(ours.scores, peers["scores"], rtol=1e-4, atol=1e-5)
        assert torch.equal(ours.labels + 1, peers["labels"])
        torch.testing.assert_close(ours.boxes, peers["boxes"], rtol=1e-3, atol=1e-2)
