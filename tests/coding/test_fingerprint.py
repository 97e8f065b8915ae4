"""What tells that weights have changed."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskpress.coding.fingerprint import weighted_sum


@given(st.binary(min_size=1, max_size=70), st.data())
def test_the_sum_on_a_device_tells_every_single_change(data: bytes, draw: st.DataObject) -> None:
    words = np.frombuffer(data + b"\0" * (-len(data) % 4), "<i4").astype(object)
    expected = sum((2 * place + 1) * int(word) for place, word in enumerate(words))
    found = weighted_sum(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    assert found.dtype == torch.int64 and (found.item() - expected) % 2**64 == 0
    place = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[place] ^= draw.draw(st.integers(1, 255))
    assert weighted_sum(torch.frombuffer(changed, dtype=torch.uint8)) != found
