"""A decoder written from docs/bitstream.md alone, in plain Python and numpy: the page's executable twin.

It imports nothing of TaskPress and no entropy coder, and is made to be read beside the page, whose sections
its modules follow. It is slow, and raises ValueError (or IndexError) at what is damaged.
"""

from .container import Codec, read_codec, read_container
from .latent import decode_latent
from .picture import decode

__all__ = ["Codec", "decode", "decode_latent", "read_codec", "read_container"]
