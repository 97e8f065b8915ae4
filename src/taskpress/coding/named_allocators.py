"""Allocators by the names used in settings and files."""

from taskpress.coding.allocation import Allocator, AllocatorSettings
from taskpress.coding.roi_allocator import RoiAllocator
from taskpress.coding.semantic_allocator import SemanticAllocator
from taskpress.errors import CodecError


def build_allocator(settings: AllocatorSettings, latent_channels: int, origin: str) -> Allocator:
    """An allocator with fresh weights from torch's generator.

    CodecError, its message starting with `origin`, for settings of which none can be built.
    """
    if not (3 <= settings.levels <= 15 and settings.levels % 2):
        raise CodecError(f"{origin}: {settings.levels} quantization levels; an odd number from 3 to 15 goes")
    if not (8 <= settings.width <= 1024 and settings.width % 8 == 0):
        raise CodecError(f"{origin}: allocator width {settings.width}; a multiple of 8 from 8 to 1024 goes")
    if settings.kind == "roi":
        return RoiAllocator(settings, latent_channels)
    if settings.kind == "semantic":
        if not 1 <= settings.classes <= 4096:
            raise CodecError(f"{origin}: a semantic allocator of {settings.classes} classes; 1 to 4096 go")
        return SemanticAllocator(settings, latent_channels)
    raise CodecError(f"{origin}: unknown allocator {settings.kind!r}; there are 'roi' and 'semantic'")
