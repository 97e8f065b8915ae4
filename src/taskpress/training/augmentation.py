"""More from few pictures: other sizes and other light.

With soft outputs, features and classes the recognizer says what it sees in whatever comes of it. Boxes, masks
and maps are those of the picture at full size and light, scaled and cut: at another size it may see others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from taskpress.coding.images import resize_long_side
from taskpress.targets import Target


def scaled(
    image: NDArray[np.uint8],
    labels: Sequence[Target | None],
    factors: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], list[Target | None]]:
    """A picture [H, W, 3] and its labels, scaled by a factor between `factors`, uniform in its logarithm."""
    factor = math.exp(rng.uniform(math.log(factors[0]), math.log(factors[1])))
    old = (image.shape[0], image.shape[1])
    image = resize_long_side(image, max(1, round(max(old) * factor)))
    new = (image.shape[0], image.shape[1])
    return image, [None if label is None else label.resized(old, new) for label in labels]


def jittered(pixels: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """A crop [3, H, W] float32 in [0, 1] in other light, in the same range.

    Brightness, contrast and saturation are multiplied in this order, each by a factor between 1 − `strength`
    and 1 + `strength`.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3).tolist()
    pixels = F.adjust_brightness(pixels, brightness)
    pixels = F.adjust_contrast(pixels, contrast)
    return F.adjust_saturation(pixels, saturation)
