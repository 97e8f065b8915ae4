"""Arrays and tensors of pictures, into each other and to other sizes."""

import numpy as np
import pytest
import torch

from taskpress.coding.images import resize_long_side, to_array, to_tensor


def test_tensor_and_array_are_inverse() -> None:
    array = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(array)
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 16, 16)
    assert tensor.min() == 0 and tensor.max() == 1
    assert np.array_equal(to_array(tensor), array)
    assert to_array(torch.tensor([-3.0, 0.5, 7.0]).reshape(3, 1, 1)).ravel().tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("size", "expected"), [((20, 30), (277, 416)), ((30, 20), (416, 277)), ((1, 999), (1, 416))]
)
def test_long_side_is_exact(picture, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resize_long_side(picture(*size), 416).shape == (*expected, 3)
