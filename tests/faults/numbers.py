"""Bad inputs: values that are not finite, unreadable images, arbitrary arguments."""

import itertools
import logging
import os
import struct
import subprocess
import sys
import zlib
from unittest import mock

import jax
import numpy as np
from PIL import Image

from configs import tiny
from laser_jax.data import open_source
from laser_jax.data.folder import split_of
from laser_jax.models.build import BOTTLENECKS
from laser_jax.sharding import put_batch
from laser_jax.training import loop
from laser_jax.training.reporter import NotFiniteError
from tests.faults.evidence import read_curves, read_state
from tests.faults.tally import check, check_kept
from tests.faults.trainer import ROOT


def not_finite(tally, directory, *, bottlenecks=tuple(BOTTLENECKS)):
    """NaN images and exploding steps are skipped or end the run, and never reach the state."""

    def config_of(bottleneck, policy):
        config = tiny.get_config()
        config.model.bottleneck, config.not_finite = bottleneck, policy
        return config

    def sound(workdir):
        state = read_state(workdir)
        spoiled = [name for name, x in state.items() if not np.all(np.isfinite(x))]
        check_kept(not spoiled, f"not finite: {spoiled}")
        return int(state[".step"])

    for bottleneck in bottlenecks:
        with tally.trial(f"{bottleneck} skips"):
            workdir = directory / f"{bottleneck}-skip"
            with _poisoned({12, 13, 27}):
                loop.train(config_of(bottleneck, "skip"), workdir)
            check(sound(workdir) == 40, "did not end")
            counted = [value for _, value in read_curves(workdir)["train/skipped_steps"]]
            check(counted == [0, 2, 3, 3], f"counted {counted}")
        with tally.trial(f"{bottleneck} stops"):
            workdir = directory / f"{bottleneck}-stop"
            with _poisoned({12}):
                _refuses(NotFiniteError, loop.train, config_of(bottleneck, "stop"), workdir)
            check(sound(workdir) == 10, "the last good checkpoint is gone")
        if bottleneck != "fsq":  # tanh bounds it
            with tally.trial(f"{bottleneck} explodes"):
                workdir = directory / f"{bottleneck}-explodes"
                config = config_of(bottleneck, "skip")
                config.optimizer.learning_rate = config.optimizer.grad_clip_norm = 1e20
                _refuses(NotFiniteError, loop.train, config, workdir)
                sound(workdir)


def _poisoned(steps):
    """Replaces the training batches of these steps with NaN."""
    count = itertools.count(1)

    def put(batch, mesh):  # as floats, since bytes have no NaN
        return put_batch(batch / np.float32(np.nan if next(count) in steps else 255), mesh)

    return mock.patch.object(loop, "put_batch", put)


def _refuses(kind, call, *args):
    try:
        call(*args)
    except kind:
        return
    check(False, f"no {kind.__name__}")


def bad_images(tally, directory):
    """Each file of a folder is converted as documented, or named and left out."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    read = {
        "good.jpg": lambda path: noise.save(path),
        "1x1.png": lambda path: noise.resize((1, 1)).save(path),
        "gray.png": lambda path: noise.convert("L").save(path),
        "16 bit.png": lambda path: Image.fromarray(levels).save(path),
        "cmyk.jpg": lambda path: noise.convert("CMYK").save(path),
        "rgba.png": lambda path: noise.convert("RGBA").save(path),
        "turned.jpg": lambda path: noise.save(path, exif=exif),
        "12000x9000.jpg": lambda path: Image.new("RGB", (12000, 9000), (9, 99, 199)).save(path),
    }
    left_out = {
        "truncated.jpg": lambda path: _truncated(noise, path),
        "truncated.png": lambda path: _truncated(noise, path),
        "text.png": lambda path: path.write_text("not an image"),
        "empty.webp": lambda path: path.touch(),
        "bomb.png": lambda path: _write_bomb(path),
    }
    folder = directory / "images"
    places, count = {}, 0
    for name, write in {**read, **left_out}.items():
        while split_of(f"{count} {name}") != "train":
            count += 1
        places[name] = folder / f"{count} {name}"
        places[name].parent.mkdir(exist_ok=True)
        write(places[name])
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("laser_jax").addHandler(handler)
    source = open_source(f"folder:{folder}", split="train", image_size=32)
    logging.getLogger("laser_jax").removeHandler(handler)
    found = {record.name: source[i] for i, record in enumerate(source.records)}
    for name in read:
        with tally.trial(name):
            image = found.get(places[name].name)
            check(image is not None, "left out")
            check(image.shape == (32, 32, 3) and image.dtype == np.uint8, f"{image.shape}")
            if name == "12000x9000.jpg":
                check(np.abs(image - (9.0, 99, 199)).max() < 4, f"shows {image[0, 0]}")
    for name in left_out:
        with tally.trial(name):
            check(places[name].name not in found, "was read")
            named = sum(str(places[name]) in message for message in messages)
            check(named == 1, f"named {named} times")
    with tally.trial("the count"):
        check(f"{len(left_out)} unreadable left out" in source.description, source.description)


def _truncated(image, path):
    image.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _write_bomb(path):
    """Writes a PNG of a few bytes whose header claims 60000 x 60000 pixels."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 60_000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def any_arguments(tally, directory):
    """hypothesis calls every public function with many shapes and dtypes."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
               "tests/test_properties.py", "tests/sparse/test_properties.py"]  # fmt: skip
    command = [word for word in command if not word.endswith(".py") or (ROOT / word).exists()]
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "thorough"}
    with tally.trial("property tests"):
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=7200
        )
        check(ended.returncode == 0, ended.stdout[-2000:])
        tally.measured = ended.stdout.strip().splitlines()[-1]


def loader_threads(tally, directory, *, threads=(1, 2, 8)):
    """Runs with different numbers of reader threads are bit-identical."""
    reference = None
    for count in threads:
        with tally.trial(f"{count} threads"):
            config = tiny.get_config()
            config.data.num_threads = count
            state = jax.device_get(loop.train(config, directory / str(count)))
            reference = reference or state
            same = jax.tree.map(np.array_equal, reference, state)
            check_kept(all(jax.tree.leaves(same)), "the state differs")
