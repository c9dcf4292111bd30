"""photo_patches: windows of the colour photographs that ship inside Python packages.

A data set that needs no internet. The eight photographs are part of the wheels of
scikit-learn, scikit-image and matplotlib. A window of side 32, 64 or 128, every half
side in both directions, is reduced by area to 32 x 32. Windows of one photograph
overlap, so validation and test hold out whole photographs.
"""

import importlib.util
import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from laser_jax.data.source import DataUnavailable

WINDOW = 32
REDUCTIONS = (1, 2, 4)

# Photograph -> package and place in it; none of these is fetched by the package at run time.
FILES = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
PHOTOGRAPHS = {
    "train": ("china", "flower", "astronaut", "motorcycle_left", "grace_hopper"),
    "validation": ("chelsea",),
    "test": ("coffee", "rocket"),
}


def read_photograph(name):
    """Returns a photograph as uint8 `(H, W, 3)`, found without importing its package.

    Raises:
      DataUnavailable: if the package or the file in it is missing.
    """
    package, place = FILES[name]
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0], place) if spec else None
    if path is None or not path.is_file():
        raise DataUnavailable(
            f"photo_patches needs the photograph {name!r}, which ships as {place} inside the "
            f"package {package!r}; it is not at {path}. Is the package installed?"
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def cut_windows(photograph, reduction):
    """Returns the windows of side `32 * reduction`, area-reduced to 32 x 32.

    They start every `16 * reduction` pixels, a multiple of `reduction`: so the
    photograph can be reduced first and cut after.

    Args:
      photograph: uint8 `(H, W, 3)`.
      reduction: pixels averaged into one, along each axis.

    Returns:
      uint8 `(n, 32, 32, 3)`, row by row from the top left.
    """
    height, width = (side // reduction for side in photograph.shape[:2])
    blocks = photograph[: height * reduction, : width * reduction].astype(np.uint32)
    blocks = blocks.reshape(height, reduction, width, reduction, 3)
    area = reduction**2
    reduced = ((blocks.sum((1, 3)) + area // 2) // area).astype(np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(reduced, (WINDOW, WINDOW), (0, 1))
    windows = windows[:: WINDOW // 2, :: WINDOW // 2].transpose(0, 1, 3, 4, 2)
    return windows.reshape(-1, WINDOW, WINDOW, 3)


class PhotoPatches(tfds.core.GeneratorBasedBuilder):
    """The windows as a TFDS data set, in the order of `PHOTOGRAPHS` and `REDUCTIONS`."""

    # A cache of another version is not read: raise it whenever the windows change.
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(WINDOW, WINDOW, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"image": image}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(names) for split, names in PHOTOGRAPHS.items()}

    def _generate_examples(self, names):
        photographs = map(read_photograph, names)
        windows = (
            window
            for photograph in photographs
            for reduction in REDUCTIONS
            for window in cut_windows(photograph, reduction)
        )
        for key, window in enumerate(windows):
            # Encoded here: an array would be encoded by TensorFlow.
            png = io.BytesIO()
            Image.fromarray(window).save(png, "png", compress_level=1)
            yield key, {"image": png.getvalue()}
