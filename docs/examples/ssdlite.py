"""A recognizer of one's own: torchvision's SSDLite, which TaskPress does not know by name.

taskpress evaluate … --recognizer python:docs/examples/ssdlite.py:SSDLite:ssdlite.pth
"""

import hashlib
from pathlib import Path

import torch
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from taskpress.detections import Detections
from taskpress.recognition.coco_categories import COCO_CATEGORIES
from taskpress.recognition.protocol import Task, freeze


class SSDLite(nn.Module):
    name, task, categories = "ssdlite", Task.DETECTION, COCO_CATEGORIES

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
        self.model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        freeze(self)
        self.fingerprint = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        # torchvision's labels are the ids of COCO's annotation files.
        ids = torch.tensor([category.id for category in COCO_CATEGORIES])
        self.register_buffer("ids", ids, persistent=False)

    @torch.no_grad()
    def predict(self, images):
        found = self.model(list(images))
        kept = [{k: v[torch.isin(f["labels"], self.ids)] for k, v in f.items()} for f in found]
        return [Detections(f["boxes"], torch.searchsorted(self.ids, f["labels"]), f["scores"]) for f in kept]

    def pseudo_labels(self, images):
        return [found.where(found.scores >= 0.4) for found in self.predict(images)]

    def loss(self, images, targets):
        given = [{"boxes": target.boxes, "labels": self.ids[target.labels]} for target in targets]
        self.model.training = True  # of the outermost module alone: it returns losses, BatchNorm stays frozen
        try:
            return self.model(list(images), given)
        finally:
            self.model.training = False

    def features(self, images):
        batch, _ = self.model.transform(list(images))
        return list(self.model.backbone(batch.tensors).values())
