"""Batches that depend on nothing but (seed, step): the same for all arms and after a resume."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from taskpress.coding.images import resize_long_side, to_tensor
from taskpress.datasets.coco import CocoImages
from taskpress.datasets.dataset import Dataset
from taskpress.datasets.folder import ImageFolder
from taskpress.datasets.own import OwnPictures
from taskpress.datasets.scenes import Scenes, Split
from taskpress.detections import Crop
from taskpress.errors import ConfigError
from taskpress.own_code import is_own
from taskpress.progress import tracked
from taskpress.targets import Target
from taskpress.training.augmentation import jittered, scaled
from taskpress.training.config import DataConfig, expand
from taskpress.training.teacher import Teacher


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of torch's generator in a step: what noise and sampling depend on, and nothing else."""
    return seed * 1_000_003 + step * 1009 + rank


@dataclass(frozen=True)
class Batch:
    """Crops, and what the teachers see in them.

    images: [B, 3, patch, patch] float32 in [0, 1]
    labels: by recognizer: its teacher's, in pixels of the crops, one for each; none where that labels no
        whole pictures
    """

    images: Tensor
    labels: Sequence[Sequence[Target]] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            [[label.to(device) for label in labels] for labels in self.labels],
        )


class Mixture:
    """Several data sets, whose pictures are numbered as those of one."""

    def __init__(self, datasets: list[Dataset]) -> None:
        self.datasets = datasets
        self._ends = np.cumsum([len(d) for d in datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def image(self, index: int) -> NDArray[np.uint8]:
        """Picture `index` of all, uint8 [H, W, 3] in RGB."""
        which = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[which - 1]) if which else 0
        return self.datasets[which][index - start].image


def open_sources(sources: list[str | dict[str, str]], scenes: Split = "train") -> Mixture:
    """The data sets a preset names, drawn scenes of that split; ConfigError or DataError for one that cannot
    be opened."""
    datasets: list[Dataset] = []
    for source in sources:
        if isinstance(source, dict):
            if set(source) != {"images", "annotations"}:
                raise ConfigError(f"data source {source}: needs exactly `images` and `annotations`")
            datasets.append(CocoImages(expand(source["images"]), expand(source["annotations"])))
        elif is_own(source):
            datasets.append(OwnPictures(expand(source)))
        elif source.startswith("scenes:"):
            number = source.removeprefix("scenes:")
            if not re.fullmatch("[1-9][0-9]{0,6}", number):
                raise ConfigError(f"data source {source!r}: write scenes:COUNT, e.g. scenes:2000, below 10⁷")
            datasets.append(Scenes(scenes, int(number)))
        else:
            datasets.append(ImageFolder(expand(source)))
    return Mixture(datasets)


class StepStream(IterableDataset[Batch]):
    """The batches of steps `first_step`, `first_step` + 1, … without end.

    Epoch e visits the pictures in a permutation drawn from (seed, e); scale, crop, flip and jitter of the
    i-th picture overall are drawn from (seed, i). With several ranks, each takes its own part of every step.
    """

    def __init__(
        self,
        pictures: Mixture,
        config: DataConfig,
        seed: int,
        teachers: Sequence[Teacher | None] = (),
        first_step: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.pictures, self.config, self.seed, self.teachers = pictures, config, seed, teachers
        self.first_step, self.rank, self.ranks = first_step, rank, ranks
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in count(self.first_step + offset, stride):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """The batch `step`, counted from 0, for this rank: of that optimizer step, where none accumulates."""
        size = self.config.batch
        first = (step * self.ranks + self.rank) * size
        crops = [self._crop(i) for i in range(first, first + size)]
        labels = [
            [label for label in of_teacher if label is not None]
            for of_teacher in zip(*(labels for _, labels in crops), strict=True)
        ]
        return Batch(torch.stack([image for image, _ in crops]), labels)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """A picture as it is labelled and cropped: [H, W, 3], its long side scaled as configured."""
        image = self.pictures.image(index)
        return image if self.config.long_side is None else resize_long_side(image, self.config.long_side)

    def _crop(self, draw: int) -> tuple[Tensor, list[Target | None]]:
        rng = np.random.default_rng([self.seed, 1, draw])
        image = self.picture(self._index(draw))
        labels = [None if teacher is None else teacher.labels(image) for teacher in self.teachers]
        # Drawn apart, so that crops are those of a training without augmentation.
        variety = np.random.default_rng([self.seed, 2, draw])
        if self.config.scale is not None:
            image, labels = scaled(image, labels, self.config.scale, variety)
        patch = self.config.patch
        height, width = image.shape[:2]
        if height < patch or width < patch:
            image = np.pad(
                image, ((0, max(0, patch - height)), (0, max(0, patch - width)), (0, 0)), mode="edge"
            )
        y = int(rng.integers(max(0, height - patch) + 1))
        x = int(rng.integers(max(0, width - patch) + 1))
        flip = self.config.flip and bool(rng.integers(2))
        crop = image[y : y + patch, x : x + patch]
        if flip:
            crop = crop[:, ::-1]
        window = Crop(x, y, patch, patch)
        cut = [None if label is None else label.cropped(window, flip) for label in labels]
        pixels = to_tensor(np.ascontiguousarray(crop))
        return jittered(pixels, self.config.jitter, variety) if self.config.jitter else pixels, cut

    def _index(self, draw: int) -> int:
        epoch, position = divmod(draw, len(self.pictures))
        if self._order is None or self._order[0] != epoch:
            self._order = (
                epoch,
                np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.pictures)),
            )
        return int(self._order[1][position])


class CropsModule(lightning.LightningDataModule):
    """Feeds Lightning the stream from where the trainer stands, and `skip` batches further.

    accumulate: batches of a step
    holds_out:  whether held-out crops are looked at along the way: `held_out_crops` of the config, or as many
        more as fill the last batch
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        teachers: Sequence[Teacher | None] = (),
        skip: int = 0,
        accumulate: int = 1,
        holds_out: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.seed, self.teachers = config, seed, teachers
        self.skip, self.accumulate = skip, accumulate
        self.pictures = open_sources(config.sources)
        self.held_out = None
        if holds_out and config.held_out is not None:
            self.held_out = open_sources(config.held_out, "validation")

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        stream = StepStream(
            self.pictures,
            self.config,
            self.seed,
            self.teachers,
            first_step=self.skip + self.accumulate * self.trainer.global_step,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
        )
        if self.config.workers > 0:
            for teacher in stream.teachers:
                if teacher is not None:
                    self._label_all(stream, teacher)
        # Forked, workers have teachers without pickling them, which ONNX graphs and classes by file do not
        # bear; they only read what was labelled. (From Python 3.14 on Linux does not fork by itself.)
        forked = self.config.workers > 0 and sys.platform == "linux"
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self.config.workers,
            multiprocessing_context="fork" if forked else None,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same crops for every training with such settings, whatever its seed and augmentation."""
        assert self.trainer is not None and self.held_out is not None
        config = self.config.model_copy(update={"flip": False, "scale": None, "jitter": 0.0})
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        stream = StepStream(self.held_out, config, 0, self.teachers, rank=rank, ranks=ranks)
        batches = math.ceil(config.held_out_crops / (config.batch * ranks))
        crops = [stream.batch(step) for step in range(batches)]
        return DataLoader(crops, batch_size=None)  # type: ignore[arg-type] # a sequence will do

    def _label_all(self, stream: StepStream, teacher: Teacher) -> None:
        """Fills the cache, once for all trainings that share a teacher: worker processes could not run a
        recognizer that is on a GPU."""
        assert self.trainer is not None
        data_set = f"{self.config.sources}, long side {self.config.long_side}"
        if data_set not in teacher.complete:
            own = range(stream.rank, len(self.pictures), stream.ranks)
            for index in tracked(own, "the teacher labels pictures"):
                teacher.labels(stream.picture(index))
            teacher.complete.add(data_set)
        self.trainer.strategy.barrier()
