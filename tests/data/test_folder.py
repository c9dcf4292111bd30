"""folder:PATH: image formats, damaged files and splits."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from laser_jax.data import open_source, prepare
from laser_jax.data.folder import split_of

SIZE = 16


def named_for(split, suffix=".png", skip=0):
    """Returns a file name that the hash puts into `split`."""
    names = (f"image_{number}{suffix}" for number in range(10_000))
    mine = [name for name in names if split_of(name) == split]
    return mine[skip]


def only_image(folder, image_size=SIZE):
    source = open_source(f"folder:{folder}", split="train", image_size=image_size)
    assert len(source) == 1
    image = source[0]
    assert image.shape == (image_size, image_size, 3) and image.dtype == np.uint8
    return image.astype(int)


def write_raw_png(path, width, height, *, depth, color, row):
    """Writes a PNG that Pillow itself does not write: `height` times the bytes `row`."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * height)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_formats_are_read_with_suffixes_in_any_case(tmp_path, suffix):
    Image.new("RGB", (SIZE, SIZE), (200, 100, 50)).save(tmp_path / named_for("train", suffix))
    np.testing.assert_allclose(only_image(tmp_path)[4, 4], (200, 100, 50), atol=4)


def test_an_image_of_the_given_size_is_unchanged(tmp_path, rng):
    pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / named_for("train"))
    np.testing.assert_array_equal(only_image(tmp_path), pixels)


def test_the_centre_square_is_kept(tmp_path, rng):
    pixels = rng.integers(0, 256, (SIZE, SIZE + 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / named_for("train"))
    np.testing.assert_array_equal(only_image(tmp_path), pixels[:, 3:-3])


def test_reduction_does_not_alias(tmp_path):
    lines = np.zeros((8 * SIZE, 8 * SIZE, 3), np.uint8)
    lines[:, ::2] = 255
    Image.fromarray(lines).save(tmp_path / named_for("train"))
    np.testing.assert_allclose(only_image(tmp_path), 127.5, atol=12)


def test_an_image_of_one_pixel_is_enlarged(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / named_for("train"))
    assert (only_image(tmp_path) == (9, 8, 7)).all()


def test_gray_becomes_equal_channels(tmp_path):
    Image.new("L", (20, 20), 90).save(tmp_path / named_for("train"))
    assert (only_image(tmp_path) == 90).all()


def test_16_bit_gray_keeps_its_range(tmp_path):
    levels = np.linspace(0, 65535, SIZE).astype(np.uint16)
    Image.fromarray(np.tile(levels, (SIZE, 1))).save(tmp_path / named_for("train"))
    expected = np.linspace(0, 255, SIZE)
    np.testing.assert_allclose(only_image(tmp_path)[0, :, 0], expected, atol=0.51)


def test_16_bit_colour_keeps_its_range(tmp_path):
    row = struct.pack(">3H", 65535, 32896, 0) * 4
    write_raw_png(tmp_path / named_for("train"), 4, 4, depth=16, color=2, row=row)
    np.testing.assert_allclose(
        only_image(tmp_path), np.full((SIZE, SIZE, 3), (255, 128, 0)), atol=1
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path, mode):
    image = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    image.paste((40, 40, 40, 255), (0, 0, SIZE // 2, SIZE))
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(tmp_path / named_for("train"))
    pixels = only_image(tmp_path)
    assert (pixels[:, : SIZE // 2] == 40).all() and (pixels[:, SIZE // 2 :] == 255).all()


def test_half_transparent_pixels_are_blended_with_white(tmp_path):
    Image.new("RGBA", (SIZE, SIZE), (100, 0, 200, 128)).save(tmp_path / named_for("train"))
    np.testing.assert_allclose(only_image(tmp_path)[0, 0], (177, 127, 227), atol=1)


def test_palette_images_are_read_in_their_colours(tmp_path):
    Image.new("RGB", (SIZE, SIZE), (10, 200, 30)).quantize(4).save(tmp_path / named_for("train"))
    np.testing.assert_allclose(only_image(tmp_path)[0, 0], (10, 200, 30), atol=2)


def test_cmyk_becomes_rgb(tmp_path):
    cmyk = Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0))  # no cyan: red
    cmyk.save(tmp_path / named_for("train", ".jpg"), quality=100)
    np.testing.assert_allclose(only_image(tmp_path)[4, 4], (255, 0, 0), atol=4)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    stored = Image.new("RGB", (2 * SIZE, 2 * SIZE), "black")
    stored.paste("white", (0, 0, 2 * SIZE, SIZE))  # stored with white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise: white at the right
    stored.save(tmp_path / named_for("train", suffix), exif=exif)
    pixels = only_image(tmp_path)
    assert pixels[:, : SIZE // 2 - 2].max() < 20 and pixels[:, SIZE // 2 + 2 :].min() > 235


@pytest.fixture
def broken(tmp_path, rng):
    """One good training image, and one of every broken kind."""
    names = (named_for("train", skip=number) for number in range(1, 10))
    Image.new("RGB", (SIZE, SIZE), "blue").save(tmp_path / named_for("train"))

    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    faults = {}
    for kind in ("jpeg", "png", "webp"):
        path = tmp_path / next(names)
        noise.save(path, kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        faults[f"truncated {kind}"] = path
    faults["text"] = tmp_path / next(names)
    faults["text"].write_text("not an image at all")
    faults["empty"] = tmp_path / next(names)
    faults["empty"].touch()
    faults["gif in disguise"] = tmp_path / next(names)
    noise.save(faults["gif in disguise"], "gif")
    faults["bomb"] = tmp_path / next(names)
    write_raw_png(faults["bomb"], 60_000, 60_000, depth=8, color=0, row=b"")
    return faults


def test_unreadable_files_are_named_counted_and_left_out(tmp_path, broken, monkeypatch):
    messages = []
    monkeypatch.setattr(
        "laser_jax.data.folder.log.warning", lambda text, *values: messages.append(text % values)
    )
    source = open_source(f"folder:{tmp_path}", split="train", image_size=SIZE)
    assert len(source) == 1 and (source[0] == (0, 0, 255)).all()
    assert len(messages) == len(broken)
    for path in broken.values():
        assert sum(str(path) in message for message in messages) == 1
    assert f"{len(broken)} unreadable left out" in source.description


def test_a_folder_of_broken_files_has_too_few_images(tmp_path, broken):
    (tmp_path / named_for("train")).unlink()
    with pytest.raises(ValueError) as error:
        open_source(f"folder:{tmp_path}", split="train", image_size=SIZE)
    assert f"too few images for train in folder {tmp_path}" in str(error.value)
    assert f"0 of {len(broken)} files" in str(error.value)


def test_a_split_without_images_is_an_error_with_the_counts(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / named_for("train"))
    with pytest.raises(ValueError, match=r"too few images for validation .*: 0 of 1 files"):
        prepare(f"folder:{tmp_path}", image_size=SIZE)


def test_missing_folder_is_named_in_the_error(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is not a directory"):
        open_source(f"folder:{tmp_path / 'nowhere'}", split="train", image_size=SIZE)


def test_image_that_is_deleted_later_is_named_in_the_error(tmp_path):
    path = tmp_path / named_for("train")
    Image.new("RGB", (4, 4)).save(path)
    source = open_source(f"folder:{tmp_path}", split="train", image_size=SIZE)
    path.unlink()
    with pytest.raises(OSError, match=f"image {path} was readable at the start and is not now"):
        source[0]


def test_split_of_an_image_depends_on_its_name_only(tmp_path):
    folder = tmp_path / "a" / "deep"
    folder.mkdir(parents=True)
    for number in range(60):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(folder / f"{number}.png")

    def members(root):
        return {
            split: [
                str(file.relative_to(root))
                for file in open_source(f"folder:{root}", split=split, image_size=2).records
            ]
            for split in ("train", "validation", "test")
        }

    before = members(tmp_path)
    names = [name for found in before.values() for name in found]
    assert sorted(names) == sorted(f"a/deep/{number}.png" for number in range(60))
    assert all(found == sorted(found) for found in before.values())
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    Image.new("RGB", (2, 2)).save(moved / "new.png")
    after = members(moved)
    assert all(set(before[split]) <= set(after[split]) for split in before)


def test_names_hash_to_the_same_split_on_every_machine():
    splits = {split_of(f"{number}.jpg") for number in range(14)}
    assert splits == {"train"}
    assert [split_of(f"{number}.jpg") for number in (14, 18)] == ["test", "validation"]


def test_the_splits_are_90_5_5():
    splits = [split_of(f"photos/{number}.jpg") for number in range(4000)]
    assert abs(splits.count("train") - 3600) < 60
    assert abs(splits.count("validation") - 200) < 45
    assert abs(splits.count("test") - 200) < 45
