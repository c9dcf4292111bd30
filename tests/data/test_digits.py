"""digits: scikit-learn's images, enlarged, with their classes."""

import numpy as np
from sklearn.datasets import load_digits

from laser_jax.data import open_source

SPLITS = ("train", "validation", "test")


def test_every_digit_is_in_one_split_with_its_class():
    images, labels = load_digits(return_X_y=True)
    sources = [open_source("digits", split=split, image_size=8, channels=1) for split in SPLITS]
    assert [len(source) for source in sources] == [1297, 200, 300]
    found = [
        (tuple(image.ravel()), source.label(i))
        for source in sources
        for i, image in enumerate(source)
    ]
    gray = np.rint(images * 255 / 16).astype(np.uint8)
    assert sorted(found) == sorted(zip(map(tuple, gray), labels, strict=True))


def test_enlarged_digits_have_the_wanted_size_and_channels(refuses):
    small = open_source("digits", split="test", image_size=8)
    large = open_source("digits", split="test", image_size=16)
    assert large[0].shape == (16, 16, 3) and large.num_classes == 10
    blocks = large[0].reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(blocks - small[0]).mean() < 20
    refuses(open_source, "digits", split="test", image_size=7)
