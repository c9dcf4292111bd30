"""The interface of data sets: a sequence of images of one size, with random access."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SPLITS = ("train", "validation", "test")


class DataUnavailable(RuntimeError):
    """A data set is not prepared and cannot be; the text names the remedy."""


class EmptySplit(ValueError):
    """A data set has no images of a split; the text names the remedy."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSource(Sequence):
    """Images of one split: `len(source)`, and `source[i]`, read-only, from any thread.

    Attributes:
      name: the data set, as given to `open_source`.
      split: `train`, `validation` or `test`.
      description: one line for reports that describes the split and the crop.
      records: what is stored, one entry an image.
      load: makes a uint8 `(height, width, channels)` array of an entry.
      remember: keeps each image once loaded. Worth its memory for small images,
        whose decoding costs more than all the rest of making a batch.
      label_of: the class of an entry, an int in [0, num_classes); None: there are no classes.
      num_classes: how many classes the data set has; 0: none.
      class_names: the name of each class; empty if there are none.
      load_whole: makes a uint8 array of the whole image of an entry, in its own size; None: that
        is what `load` makes.
    """

    name: str
    split: str
    description: str
    records: Sequence = dataclasses.field(repr=False)
    load: Callable[[Any], np.ndarray] = dataclasses.field(repr=False)
    remember: bool = dataclasses.field(default=False, repr=False)
    label_of: Callable[[Any], int] | None = dataclasses.field(default=None, repr=False)
    num_classes: int = 0
    class_names: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    load_whole: Callable[[Any], np.ndarray] | None = dataclasses.field(default=None, repr=False)
    _loaded: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)} in {self.name} {self.split}.")
        image = self._loaded.get(index)
        if image is None:
            image = self.load(self.records[index])
            if self.remember:
                self._loaded[index] = image
        return image

    def whole(self, index):
        """Returns an image in its own size."""
        return self[index] if self.load_whole is None else self.load_whole(self.records[index])

    def label(self, index):
        """Returns the class of an image, an int in [0, num_classes).

        Raises:
          ValueError: if the data set has no classes.
        """
        if self.label_of is None:
            raise ValueError(f"{self.name} has no classes; see data.name.")
        return int(self.label_of(self.records[index]))
