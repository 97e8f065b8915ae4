"""TaskPress: learned image compression for recognition.

`taskpress.load(name_or_path)` gives a `Codec`; what can go wrong is a `TaskPressError`. Everything else lives
in the subpackages.
"""

from typing import TYPE_CHECKING, Any

from taskpress.coding.errors import BitstreamError, CodecError, ConfigError, ImageError, TaskPressError

if TYPE_CHECKING:
    from taskpress.coding.codec import Codec
    from taskpress.version import __version__

    load = Codec.load

__all__ = [
    "BitstreamError",
    "Codec",
    "CodecError",
    "ConfigError",
    "ImageError",
    "TaskPressError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `taskpress --version` and completion should not wait for it.
    if name == "__version__":
        from taskpress.version import __version__

        return __version__
    if name == "Codec":
        from taskpress.coding.codec import Codec

        return Codec
    if name == "load":
        from taskpress.coding.codec import Codec

        return Codec.load
    raise AttributeError(f"module 'taskpress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
