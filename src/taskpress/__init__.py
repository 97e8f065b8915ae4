"""TaskPress: learned image compression for recognition.

`taskpress.load(name_or_path)` gives a `Codec`; what can go wrong is a `TaskPressError`. What trains and
judges codecs is in the subpackages `recognition`, `datasets`, `auxiliary`, `training` and `evaluation`.
"""

from typing import TYPE_CHECKING, Any

from taskpress.errors import (
    BitstreamError,
    CodecError,
    ConfigError,
    DataError,
    ImageError,
    RecognizerError,
    TaskPressError,
    TrainingError,
    UnknownCodecError,
)
from taskpress.version import __version__

if TYPE_CHECKING:
    from taskpress.coding.codec import Codec
    from taskpress.coding.finder import CodecFinder

    load = Codec.load

__all__ = [
    "BitstreamError",
    "Codec",
    "CodecError",
    "CodecFinder",
    "ConfigError",
    "DataError",
    "ImageError",
    "RecognizerError",
    "TaskPressError",
    "TrainingError",
    "UnknownCodecError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `taskpress --version` and completion should not wait for it.
    if name in ("Codec", "load"):
        from taskpress.coding.codec import Codec

        return Codec if name == "Codec" else Codec.load
    if name == "CodecFinder":
        from taskpress.coding.finder import CodecFinder

        return CodecFinder
    raise AttributeError(f"module 'taskpress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
