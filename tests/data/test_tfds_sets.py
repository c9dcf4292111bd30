"""The public sets, through TFDS's own code, on small files in their real formats.

The archives lie where a person would put them by hand; only TFDS's comparison with
the real files' checksums is switched off.
"""

import io
import pathlib
import tarfile
import zipfile

import jax
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import download_manager

import laser_jax
from laser_jax.data import DataUnavailable, num_classes, open_source, open_split, prepare
from laser_jax.data.tfds_sets import TFDS_SETS
from laser_jax.evaluation.codec import fit_codec, write_tables
from laser_jax.training.command_line import load_config
from laser_jax.training.prior_setup import PriorSetup
from laser_jax.training.prior_step import PriorStep
from laser_jax.training.state import abstract_state

ROOT = pathlib.Path(__file__).parents[2]
STORED = ROOT / "tests" / "stored" / "vq.tar.gz"

CIFAR_TRAIN, CIFAR_TEST = 5010, 7
CELEB_A_SPLITS = (0, 0, 0, 1, 1, 2)  # of files 000001 to 000006: train, validation, test
IMAGENETTE_TRAIN, IMAGENETTE_TEST = 504, 3


def encode(pixels, format):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, quality=95)
    return file.getvalue()


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def cifar_images(count, start):
    """Red and green say which image, blue is 0 above and 255 below."""
    images = np.zeros((count, 32, 32, 3), np.uint8)
    ids = start + np.arange(count)
    images[..., 0] = (ids % 256)[:, None, None]
    images[..., 1] = (ids // 256)[:, None, None]
    images[:, 16:, :, 2] = 255
    return images


def write_cifar10(folder):
    def binary(images):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return np.pad(planes, ((0, 0), (1, 0)), constant_values=3).tobytes()  # label 3 first

    root = "cifar-10-batches-bin"
    train = np.split(cifar_images(CIFAR_TRAIN, 0), 5)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for number, images in enumerate(train, 1):
            add(archive, f"{root}/data_batch_{number}.bin", binary(images))
        test = cifar_images(CIFAR_TEST, CIFAR_TRAIN)
        add(archive, f"{root}/test_batch.bin", binary(test))
        names = [f"class_{number}\n" for number in range(10)]
        add(archive, f"{root}/batches.meta.txt", "".join(names).encode())


def celeb_a_image(number):
    """178 x 218: black bars of 20 rows above and below a square of one gray."""
    image = np.zeros((218, 178, 3), np.uint8)
    image[20:198] = 30 * number
    return image


def write_celeb_a(folder):
    from tensorflow_datasets.datasets.celeb_a import celeb_a_dataset_builder as celeb_a

    files = [f"{number:06d}.jpg" for number in range(1, len(CELEB_A_SPLITS) + 1)]
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for number, file in enumerate(files, 1):
            archive.writestr(f"img_align_celeba/{file}", encode(celeb_a_image(number), "jpeg"))

    def table(name, columns, header=()):
        rows = [f"{file} {columns}" for file in files]
        (folder / name).write_text("\n".join([*header, *rows]) + "\n")

    for name, headings, value in (
        ("list_attr_celeba.txt", celeb_a.ATTR_HEADINGS, "-1"),
        ("list_landmarks_align_celeba.txt", celeb_a.LANDMARK_HEADINGS, "60"),
    ):
        header = (str(len(files)), " ".join(headings))
        table(name, " ".join([value] * len(headings)), header)
    table("identity_CelebA.txt", "7")
    partition = [f"{file} {split}\n" for file, split in zip(files, CELEB_A_SPLITS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(partition))


def write_imagenette(folder):
    def picture(index):
        """60 x 40: a square of one gray in the middle, black at left and right."""
        image = np.zeros((40, 60, 3), np.uint8)
        image[:, 10:50] = 50 + index % 200
        return encode(image, "jpeg")

    with tarfile.open(folder / "imagenette2-320.tgz", "w:gz") as archive:
        for split, count in (("train", IMAGENETTE_TRAIN), ("val", IMAGENETTE_TEST)):
            for index in range(count):
                label = ("n01440764", "n02102040")[index % 2]
                name = f"imagenette2-320/{split}/{label}/{label}_{index}.JPEG"
                add(archive, name, picture(index))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("public_sets")
    by_hand = data_dir / "downloads" / "manual"
    by_hand.mkdir(parents=True)
    for write in (write_cifar10, write_celeb_a, write_imagenette):
        write(by_hand)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            download_manager.DownloadManager, "_register_or_validate_checksums", lambda *_, **__: 0
        )
        patch.setattr(requests, "head", refuse)  # files put by hand need no internet
        for name in ("cifar10", "celeb_a", "imagenette"):
            prepare(name, image_size=32, data_dir=data_dir)
    return data_dir


def refuse(*_, **__):
    raise requests.ConnectionError("no route to host")


def ids(source):
    pixels = np.stack(list(source))[:, 0, 0].astype(int)
    return pixels[:, 0] + 256 * pixels[:, 1]


def test_cifar10_holds_out_the_last_5000_of_train(data_dir):
    splits = {
        split: ids(open_source("cifar10", split=split, image_size=32, data_dir=data_dir))
        for split in ("train", "validation", "test")
    }
    assert {split: len(found) for split, found in splits.items()} == {
        "train": CIFAR_TRAIN - 5000,
        "validation": 5000,
        "test": CIFAR_TEST,
    }
    both = np.concatenate([splits["train"], splits["validation"]])
    np.testing.assert_array_equal(np.sort(both), np.arange(CIFAR_TRAIN))
    np.testing.assert_array_equal(np.sort(splits["test"]), CIFAR_TRAIN + np.arange(CIFAR_TEST))


def test_cifar10_images_are_the_stored_pixels(data_dir):
    source = open_source("cifar10", split="test", image_size=32, data_dir=data_dir)
    expected = cifar_images(CIFAR_TEST, CIFAR_TRAIN)[np.argsort(np.argsort(ids(source)))]
    np.testing.assert_array_equal(np.stack(list(source)), expected)


def test_celeb_a_has_its_own_splits_in_the_centre_square(data_dir):
    grays = {}
    for split in ("train", "validation", "test"):
        source = open_source("celeb_a", split=split, image_size=128, data_dir=data_dir)
        images = np.stack(list(source)).astype(int)
        assert images.shape[1:] == (128, 128, 3)
        inside = images[:, 4:-4]  # away from JPEG's ringing at the bars
        assert np.ptp(inside, axis=(1, 2, 3)).max() <= 2
        grays[split] = sorted(np.rint(inside.mean((1, 2, 3)) / 30).astype(int))
    assert grays == {"train": [1, 2, 3], "validation": [4, 5], "test": [6]}


def test_celeb_a_can_be_enlarged(data_dir):
    source = open_source("celeb_a", split="test", image_size=256, data_dir=data_dir)
    assert source[0].shape == (256, 256, 3)


def test_imagenette_tests_on_the_official_validation_set(data_dir):
    sources = {
        split: open_source("imagenette", split=split, image_size=32, data_dir=data_dir)
        for split in ("train", "validation", "test")
    }
    assert {split: len(source) for split, source in sources.items()} == {
        "train": IMAGENETTE_TRAIN - 500,
        "validation": 500,
        "test": IMAGENETTE_TEST,
    }
    images = np.stack(list(sources["test"])).astype(int)
    assert images.shape == (IMAGENETTE_TEST, 32, 32, 3)
    means = images[:, :, 4:-4].mean((1, 2, 3))
    np.testing.assert_allclose(np.sort(means), 50 + np.arange(IMAGENETTE_TEST), atol=1)


def test_labels_are_those_of_the_records(data_dir):
    def source(name):
        return open_source(name, split="test", image_size=32, data_dir=data_dir)

    assert [source("cifar10").label(i) for i in range(CIFAR_TEST)] == CIFAR_TEST * [3]
    found = source("imagenette")
    classes = tfds.builder("imagenette/320px-v2").info.features["label"].names
    order = np.argsort([np.mean(found[i]) for i in range(IMAGENETTE_TEST)])
    names = [classes[found.label(int(i))] for i in order]
    assert names == ["n01440764", "n02102040", "n01440764"]
    assert source("celeb_a").num_classes == 0
    with pytest.raises(ValueError, match="celeb_a has no classes"):
        source("celeb_a").label(0)


@pytest.mark.parametrize("name", ["cifar10", pytest.param("imagenette", marks=pytest.mark.slow)])
def test_class_conditional_priors_learn_tokens_and_labels_of_the_set(name, data_dir, tmp_path):
    """With the set's own config; of the autoencoder, a small stored one stands in."""
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    (workdir,) = (path.parent for path in tmp_path.rglob("config.json"))
    config = load_config(ROOT / "configs" / f"prior_{name}.py")
    config.autoencoder, config.data.data_dir = str(workdir), str(data_dir)
    config.data.image_size = 32
    images, validation = (open_split(config.data, split) for split in ("train", "test"))
    trained = laser_jax.load(workdir)
    codec = fit_codec(
        trained.model, trained.variables, images, images=4, batch_size=4, most_steps=0
    )
    write_tables(workdir, int(trained.state.step), codec.tables)
    setup = PriorSetup.from_config(config)
    setup.check()
    config.data.name += ":1.0.0"  # a version has the same classes, known without files, too
    assert num_classes(config.data) == 10
    config.data.name = config.data.name.partition(":")[0]
    assert (setup.model.num_classes, setup.model.width) == (10, 256)
    (tmp_path / "run").mkdir()
    tokens, held_out = setup.training_data(tmp_path / "run", images, validation)
    assert tokens.symbols.shape == (2 * len(images), 64, 1)
    labels = [images.label(i) for i in range(len(images))]
    np.testing.assert_array_equal(tokens.labels, 2 * labels)
    assert len(held_out) == len(validation)
    batch = jax.tree.map(lambda x: np.stack(8 * [x]), tokens[0])
    state, metrics, _ = jax.eval_shape(PriorStep(setup), abstract_state(setup), batch)
    assert state.step.shape == metrics["loss"].shape == ()


def test_descriptions_say_split_and_crop(data_dir):
    def describe(name, split, image_size):
        return open_source(name, split=split, image_size=image_size, data_dir=data_dir).description

    assert describe("cifar10", "validation", 32) == (
        "cifar10 validation: train[-5000:] of TFDS cifar10; 32x32 as they are"
    )
    assert describe("imagenette", "test", 256) == (
        "imagenette test: validation of TFDS imagenette/320px-v2; centre square, bicubic to 256x256"
    )


def test_manually_placed_files_have_the_names_that_tfds_expects():
    for name, spec in TFDS_SETS.items():
        if spec.files:
            known = {info.filename for info in tfds.builder(spec.builder).url_infos.values()}
            assert set(spec.files) <= known
            assert name == "imagenette" or set(spec.files) == known
    assert tfds.builder("imagenette/320px-v2").builder_config.dirname == "imagenette2-320"


@pytest.mark.parametrize("name", ["cifar10", "celeb_a", "imagenette"])
def test_error_without_internet_names_the_place_and_the_remedy(name, monkeypatch, tmp_path):
    monkeypatch.setattr(requests, "head", refuse)
    with pytest.raises(DataUnavailable) as error:
        open_source(name, split="train", image_size=32, data_dir=tmp_path)
    text = str(error.value)
    assert f"'{name}' is not in {tmp_path}" in text
    assert "no route to host" in text
    assert "python main.py --config=... --mode=prepare" in text
    assert str(tmp_path / "downloads" / "manual") in text
    assert all(file in text for file in TFDS_SETS[name].files)
    assert ("Google Drive" in text) == (name == "celeb_a")


def test_a_file_with_a_wrong_checksum_raises(tmp_path):
    by_hand = tmp_path / "downloads" / "manual"
    by_hand.mkdir(parents=True)
    (by_hand / "cifar-10-binary.tar.gz").write_bytes(b"half a download")
    with pytest.raises(DataUnavailable, match=r"cifar-10-binary.tar.gz.*wrong checksum"):
        open_source("cifar10", split="train", image_size=32, data_dir=tmp_path)
    assert not list((tmp_path / "cifar10").glob("*"))


def test_a_set_stored_as_tfrecord_raises(tmp_path):
    directory = tmp_path / "cifar10" / "3.0.2"
    directory.mkdir(parents=True)
    builder = tfds.builder("cifar10", data_dir=tmp_path)
    builder.info.set_file_format("tfrecord")
    name = "cifar10-test.tfrecord-00000-of-00001"
    split = tfds.core.SplitInfo(
        name="test",
        shard_lengths=[1],
        num_bytes=1,
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=directory, dataset_name="cifar10", split="test", filetype_suffix="tfrecord"
        ),
    )
    builder.info.set_splits(tfds.core.splits.SplitDict([split]))
    builder.info.write_to_directory(directory)
    (directory / name).touch()
    with pytest.raises(DataUnavailable, match=r"stored as tfrecord.*choose another data_dir"):
        open_source("cifar10", split="test", image_size=32, data_dir=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "celeb_a", "imagenette"])
def test_gray_is_the_luma_of_the_colour_images(name, data_dir):
    def first(channels):
        source = open_source(
            name, split="test", image_size=32, channels=channels, data_dir=data_dir
        )
        return source[0], source.description

    (colour, description), (gray, gray_description) = first(3), first(1)
    assert gray.shape == (32, 32, 1) and gray.dtype == np.uint8
    luma = colour @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray[..., 0], luma, atol=1.01)
    assert gray_description == f"{description}; gray (luma of ITU-R 601)"
