"""Unusual image files; PNGs are written by hand where Pillow cannot write them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from laser_jax.data.images import load_square

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")
SIDE = 4


def chunk(kind, content, crc=None):
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(samples, *, bits=8, color=None, before=b"", after=b""):
    """Returns a PNG of integer samples `(h, w)` or `(h, w, c)`, with more chunks around IDAT."""
    height, width = samples.shape[:2]
    color = {2: 0, 3: 2}[samples.ndim] if color is None else color
    rows = samples.reshape(height, -1).astype(">u2")
    if bits == 16:
        rows = [row.tobytes() for row in rows]
    else:
        each = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = [np.packbits(row).tobytes() for row in each]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join([
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), before, chunk(b"IDAT", pixels), after,
        chunk(b"IEND", b""),
    ])  # fmt: skip


def load(data, channels=3, side=SIDE, **options):
    return load_square(io.BytesIO(data), side, channels, **options).astype(int)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_gray_level_is_white(bits, channels):
    most = 2**bits - 1
    levels = np.unique([0, 1, most // 2, most - 1, most])
    samples = np.resize(levels, (SIDE, SIDE))
    for key in levels:
        data = png(samples, bits=bits, before=chunk(b"tRNS", struct.pack(">H", key)))
        expected = np.where(samples == key, 255, np.round(samples * (255 / most)))
        pixels = load(data, channels)
        assert pixels.shape == (SIDE, SIDE, channels)
        assert (pixels == expected[..., None]).all(), key


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_is_white_and_its_neighbours_are_not(bits):
    top = 2 ** (bits - 8)
    key = np.array([200, 100, 50]) * top + (3 if bits == 16 else 0)
    samples = np.tile(key, (SIDE, SIDE, 1))
    samples[0, 0, 2] += 1  # at 16 bits the upper bytes are those of the key
    samples[0, 1, 0] -= 1
    data = png(samples, bits=bits, before=chunk(b"tRNS", struct.pack(">3H", *key)))
    expected = samples // top
    expected[1:] = expected[0, 2:] = 255
    np.testing.assert_array_equal(load(data), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_with_alpha_is_shown_over_white(bits):
    colours, alphas = [(200, 0, 100), (0, 90, 30)], [0, 128]
    samples = np.resize([0, 1], (SIDE, SIDE))
    palette = chunk(b"PLTE", bytes(np.ravel(colours).tolist()))
    data = png(samples, bits=bits, color=3, before=palette + chunk(b"tRNS", bytes(alphas)))
    pixels = load(data)
    assert (pixels[0, 0] == 255).all()
    np.testing.assert_allclose(pixels[0, 1], [127, 172, 142], atol=1)


@pytest.mark.parametrize("color", [4, 6])
def test_16_bit_alpha_is_shown_over_white(color):
    width = {4: 1, 6: 3}[color]
    samples = np.full((SIDE, SIDE, width + 1), 0x4000)
    samples[0, ..., -1], samples[1:, ..., -1] = 0, 0xFFFF
    pixels = load(png(samples, bits=16, color=color))
    assert (pixels[0] == 255).all() and (pixels[1:] == 0x40).all()


LARGE = zlib.compress(bytes(2 * 2**20))
METADATA = {
    "compressed text": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "colour profile": chunk(b"iCCP", b"name\0\0" + LARGE),
    "text of a wrong checksum": chunk(b"tEXt", b"Comment\0hello", crc=1),
    "garbage in a colour profile": chunk(b"iCCP", b"\xff" * 40),
    "garbage in text": chunk(b"zTXt", b"Comment\0\0garbage"),
    "garbage in EXIF": chunk(b"eXIf", b"\xff\x00garbage\xff" * 9),
    "empty EXIF": chunk(b"eXIf", b""),
    "EXIF of a wrong checksum": chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0", crc=1),
    "garbage in time and size": chunk(b"tIME", b"1") + chunk(b"pHYs", b"\0"),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", METADATA)
def test_png_is_read_with_any_metadata(kind, place, rng):
    samples = rng.integers(0, 256, (SIDE, SIDE, 3))
    data = png(samples, **{place: METADATA[kind]})
    np.testing.assert_array_equal(load(data), samples)
    load(data, side=1, reduced=True)


def test_large_text_hides_neither_transparency_nor_orientation(rng):
    samples = rng.integers(0, 100, (SIDE, SIDE))
    samples[0] = 100
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the first row becomes the last column
    metadata = METADATA["compressed text"] + chunk(
        b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")
    )
    data = png(samples, before=chunk(b"tRNS", b"\0\x64") + metadata)
    expected = np.where(samples == 100, 255, samples)
    np.testing.assert_array_equal(load(data, 1)[..., 0], np.rot90(expected, -1))


def test_png_with_damaged_pixels_raises_with_any_metadata(rng):
    data = png(rng.integers(0, 256, (60, 60, 3)), before=METADATA["compressed text"])
    for broken in (data[: len(data) // 2], data[:-40], data[:-40] + b"x" + data[-39:]):
        with pytest.raises((OSError, ValueError, SyntaxError)):
            load(broken)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    "exif", [b"garbage" * 9, b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"]
)
def test_image_with_invalid_exif_is_not_rotated(kind, exif):
    stored = Image.new("RGB", (SIDE, SIDE), (90, 90, 90))
    file = io.BytesIO()
    stored.save(file, kind, exif=b"Exif\0\0" + exif)
    np.testing.assert_allclose(load(file.getvalue()), 90, atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_every_exif_orientation_is_applied(kind, orientation):
    corners = np.kron([[0, 80], [160, 240]], np.ones((8, 8))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(corners).convert("RGB").save(file, kind, exif=exif)
    flipped = corners[:, ::-1]
    upright = {
        1: corners, 2: flipped, 3: corners[::-1, ::-1], 4: corners[::-1],
        5: corners.T, 6: np.rot90(corners, -1), 7: corners[::-1, ::-1].T, 8: np.rot90(corners),
    }[orientation]  # fmt: skip
    found = load(file.getvalue(), 1, side=16)[4::8, 4::8, 0]
    np.testing.assert_allclose(found, upright[4::8, 4::8], atol=6)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_first_frame_of_an_animation_is_used(kind):
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(load(file.getvalue())[0, 0], [255, 0, 0])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_gray_is_the_luma_of_the_colour_that_is_shown(mode, rng):
    image = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, "jpeg" if mode == "CMYK" else "png")
    gray, colour = load(file.getvalue(), 1), load(file.getvalue())
    np.testing.assert_allclose(gray[..., 0], colour @ [0.299, 0.587, 0.114], atol=0.51)


def test_16_bit_gray_is_rounded_once():
    samples = np.arange(65536).reshape(256, 256)
    for channels in (1, 3):
        pixels = load(png(samples, bits=16), channels, side=256)
        assert (pixels == np.round(samples[..., None] / 257)).all()


def test_file_that_is_not_an_image_raises_with_that_reason():
    with pytest.raises(ValueError, match="no JPEG, PNG or WebP image"):
        load(b"not an image")
