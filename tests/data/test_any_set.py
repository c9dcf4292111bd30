"""Any image set of TFDS, classes of folders, and images of other shapes."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from laser_jax.data import EmptySplit, open_source, tfds_sets
from laser_jax.data.images import load_square, random_crop
from laser_jax.data.tfds_sets import TfdsSet, _described_by, _splits


class LaserTestColours(tfds.core.GeneratorBasedBuilder):
    """40 images of 20x30 pixels of one colour each; red is the number, the class is `kind`."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(None, None, 3)),
            "kind": tfds.features.ClassLabel(names=["even", "odd"]),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(40):
            yield i, {"picture": np.full((20, 30, 3), [6 * i, 0, 0], np.uint8), "kind": i % 2}


@pytest.mark.parametrize("name", ["laser_test_colours", "laser_test_colours:1.2.0"])
def test_any_image_set_has_splits_labels_and_sizes(name, tmp_path_factory):
    directory = tmp_path_factory.getbasetemp() / "colours"
    found = {}
    for split in ("train", "validation", "test"):
        source = open_source(name, split=split, image_size=(16, 32), data_dir=directory)
        assert source[0].shape == (16, 32, 3) and source.whole(0).shape == (20, 30, 3)
        assert source.class_names == ("even", "odd") and source.num_classes == 2
        numbers = [round(source[i][0, 0, 0] / 6) for i in range(len(source))]
        assert [source.label(i) for i in range(len(source))] == [n % 2 for n in numbers]
        found[split] = numbers
    assert {split: len(numbers) for split, numbers in found.items()} == {
        "train": 36, "validation": 2, "test": 2,
    }  # fmt: skip
    assert sorted(n for numbers in found.values() for n in numbers) == list(range(40))
    assert "train[95%:] of TFDS laser_test_colours" in source.description


def test_sets_that_tfds_does_not_know_raise_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'cifar'; choose from photo_patches"):
        open_source("cifar", split="train", image_size=32, data_dir=tmp_path)


@pytest.mark.parametrize("own, splits", [
    (["train", "validation", "test"], ["train", "validation", "test"]),
    (["train", "test"], ["train[:95%]", "train[95%:]", "test"]),
    (["train", "validation"], ["train[:95%]", "train[95%:]", "validation"]),
    (["train"], ["train[:90%]", "train[90%:95%]", "train[95%:]"]),
])  # fmt: skip
def test_missing_splits_are_cut_from_train(own, splits):
    assert list(_splits(own).values()) == splits


@pytest.mark.parametrize("own, splits", [
    (["test"], {"test": "test"}),
    (["validation"], {"test": "validation", "validation": "validation"}),
    (["test", "validation"], {"test": "test", "validation": "validation"}), (["full"], {}),
])  # fmt: skip
def test_sets_without_train_have_the_held_out_splits_alone(own, splits):
    assert _splits(own) == splits


def described(splits, **features):
    return SimpleNamespace(features=features, splits=dict.fromkeys(splits))


def test_image_is_preferred_to_masks_and_a_lone_test_split_is_enough(monkeypatch):
    image, mask = tfds.features.Image(), tfds.features.Image(shape=(None, None, 1))
    info = described(["test"], image=image, segmentation_mask=mask)
    spec = _described_by(info, TfdsSet(builder="pets", splits={}))
    assert spec.image == "image" and spec.splits == {"test": "test"}
    for wrong in (
        described(["train"], left=image, right=image), described(["train"], text=0),
        described(["all"], image=image),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="cannot be read as images: it needs one feature"):
            _described_by(wrong, TfdsSet(builder="pets", splits={}))
    builder = SimpleNamespace(info=info, as_data_source=lambda *_, **__: [0, 1])
    monkeypatch.setattr(tfds_sets, "_prepared_builder", lambda *_: builder)
    assert len(open_source("pets", split="test", image_size=32)) == 2
    with pytest.raises(EmptySplit, match="no split 'train' .* can be evaluated on test"):
        open_source("pets", split="train", image_size=32)


def write(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 12), (number, 0, 0)).save(path)


def labels(folder, split):
    source = open_source(f"folder:{folder}", split=split, image_size=8)
    if not source.num_classes:
        return None
    return {source.records[i].name: source.label(i) for i in range(len(source))}


def test_folders_below_or_above_splits_are_classes(tmp_path):
    write(tmp_path, "train/dog/a.png", "train/cat/far/b.png", "test/dog/c.png", "cat/test/d.png")
    assert labels(tmp_path, "train") == {"a.png": 1, "b.png": 0}
    assert labels(tmp_path, "test") == {"c.png": 1, "d.png": 0}
    source = open_source(f"folder:{tmp_path}", split="train", image_size=8)
    assert source.class_names == ("cat", "dog")


@pytest.mark.parametrize("names", [
    ("train/dog/a.png", "train/b.png", "test/cat/c.png"), ("train/dog/a.png", "test/dog/b.png"),
])  # fmt: skip
def test_files_without_folders_or_one_folder_are_no_classes(names, tmp_path):
    write(tmp_path, *names)
    assert labels(tmp_path, "train") is None


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("shape, size, rows, columns", [
    ((12, 20), (6, 5), slice(0, 12), slice(5, 15)),
    ((20, 12), (6, 12), slice(7, 13), slice(0, 12)),
    ((12, 20), 12, slice(0, 12), slice(4, 16)),
])  # fmt: skip
def test_centre_has_the_shape_of_the_result(shape, size, rows, columns):
    image = np.zeros((*shape, 3), np.uint8)
    image[rows, columns] = 200
    found = load_square(encoded(image), size)
    assert found.shape == (*((size, size) if isinstance(size, int) else size), 3)
    assert found.min() > 180  # Pillow looks a pixel beyond the box


def test_random_crops_have_their_area_shape_and_place():
    rows, columns = np.mgrid[:120, :200]
    image = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    rng = np.random.default_rng(0)
    crops = np.stack([random_crop(image, rng, (16, 32), 0.2) for _ in range(300)]).astype(int)
    assert crops.shape == (300, 16, 32, 3)
    down = (crops[:, -1, 0, 0] - crops[:, 0, 0, 0]) * 16 / 15  # of the part, in pixels
    across = (crops[:, 0, -1, 1] - crops[:, 0, 0, 1]) * 32 / 31
    area, ratio = down * across / image[..., 0].size, across / down / 2
    assert 0.15 < area.min() < 0.3 and 0.6 < area.max() <= 1.02
    assert 0.7 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.42
    assert crops[:, 0, 0, 0].min() < 5 and crops[:, -1, 0, 0].max() > 114
    assert random_crop(image[:, :, :1], rng, 9, 1.0).shape == (9, 9, 1)
