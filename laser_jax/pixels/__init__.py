"""A codec of pictures that needs no training: its dictionary ships with the package.

    files = compress(images, quality=75)    # list of bytes
    images = decompress(files)              # list of uint8 (H, W, C)

A thumbnail of mean colours comes first. Each 8x8 patch is predicted from it and from the decoded
pixels above and to the left. The residual is coded by as many atoms as save more error than their
bits cost, and the atoms by a context model. `python -m laser_jax.pixels` learns the model again.
"""

from laser_jax.pixels.codec import check_quality, compress, decompress, is_pixel_file
from laser_jax.pixels.model import PixelModel, read_model, shipped_model

__all__ = [
    "PixelModel",
    "check_quality",
    "compress",
    "decompress",
    "is_pixel_file",
    "read_model",
    "shipped_model",
]
