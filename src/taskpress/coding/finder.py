"""Which codec a bitstream needs: its fingerprint is in the header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from taskpress.coding.bitstream import unpack
from taskpress.coding.checkpoints import shipped_names
from taskpress.coding.codec import Codec
from taskpress.coding.transforms import check_precision
from taskpress.errors import UnknownCodecError


class CodecFinder:
    """Finds codecs by fingerprint among those given and those shipped; each is loaded once.

    given:             files or shipped names, which are loaded at once
    precision, device: of every codec, as in `Codec.load` and `Codec.to`

    Threads may share one. ConfigError for an unknown precision, and what `Codec.load` raises.
    """

    def __init__(
        self, given: Sequence[str | Path] = (), precision: str = "float32", device: str = "cpu"
    ) -> None:
        self._precision, self._device = check_precision(precision), device
        self._unread: list[str | Path] = [*shipped_names()]
        self._by_fingerprint: dict[str, tuple[str, Codec]] = {}
        self._lock = Lock()
        for name in given:
            self._add(name)

    def find(self, data: bytes) -> tuple[str, Codec]:
        """Name (as given, or shipped) and codec of a bitstream; UnknownCodecError where none of them wrote
        it, BitstreamError where it is damaged."""
        fingerprint = unpack(data)[0].fingerprint
        with self._lock:
            while fingerprint not in self._by_fingerprint and self._unread:
                self._add(self._unread.pop(0))
            if fingerprint not in self._by_fingerprint:
                raise UnknownCodecError(f"was coded with codec {fingerprint}, none of those known")
            return self._by_fingerprint[fingerprint]

    def _add(self, name: str | Path) -> None:
        codec = Codec.load(name, self._precision).to(self._device)
        self._by_fingerprint[codec.fingerprint] = (str(name), codec)
