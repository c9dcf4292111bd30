"""Autoencoders of pictures of 128x128 at f8: the network of VQGAN under several bottlenecks.

    python -m experiments.large_pictures --workdir=runs/full/large_pictures

The pictures are windows of the embedded photographs. The losses are absolute error and LPIPS by
AlexNet, as many steps for every bottleneck; LPIPS by VGG16 was not trained on. JPEG
and WebP store the same windows as one mosaic.
"""

import logging
from typing import NamedTuple

import numpy as np
from absl import app
from PIL import Image

import laser_jax
from configs import laser_imagenette, vqgan_imagenette
from experiments import results
from experiments.latent_codecs import trained_run
from experiments.photographs import as_bytes, source_settings
from laser_jax.data import open_split
from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph
from laser_jax.evaluate import evaluate
from laser_jax.evaluation.formats import FORMATS
from laser_jax.evaluation.split import evenly_spaced
from laser_jax.figures import style
from laser_jax.files import whole_file

SIDE = 128
REDUCTIONS = (1, 2)  # pixels averaged into one, along each axis
SHOWN = 6  # test windows in the figure
COLUMNS = {
    "bits_per_pixel": "bits a pixel", "psnr_pooled": "PSNR, dB", "ssim": "SSIM",
    "lpips": "LPIPS, AlexNet", "lpips_vgg": "LPIPS, VGG16", "fd_vgg16": "FD of VGG16",
}  # fmt: skip


class Size(NamedTuple):
    """How large the study is.

    Attributes:
      steps: of training, the same for all.
      batch_size: windows of a step.
      num_hiddens: channels of the network at 128x128.
      stride: pixels between windows; the test windows have twice as much.
      kinds: name -> settings of the model beyond those of the config; the config of sparse codes
        is `laser_imagenette`, of the others `vqgan_imagenette`.
    """

    steps: int
    batch_size: int
    num_hiddens: int
    stride: int
    kinds: dict


KINDS = {
    "VQ": {"num_embeddings": 1024, "embedding_dim": 8, "z_channels": 8},
    "residual VQ": {
        "bottleneck": "rvq", "num_embeddings": 1024, "num_stages": 4, "embedding_dim": 16,
        "z_channels": 16,
    },
    "FSQ": {"bottleneck": "fsq", "fsq_levels": (8, 5, 5, 5), "embedding_dim": 4, "z_channels": 4},
    "sparse by rate, 2x2": {"bottleneck": "ksvd", "ksvd_method": "approximate"},
}  # fmt: skip

SIZES = {
    "small": Size(
        steps=20, batch_size=4, num_hiddens=4, stride=192,
        kinds={name: KINDS[name] for name in ("VQ", "sparse by rate, 2x2")},
    ),
    "full": Size(steps=1500, batch_size=8, num_hiddens=16, stride=32, kinds=KINDS),
}  # fmt: skip


def run(out, size):
    """Trains and measures every kind, and lays out the report."""
    name = out.images
    if name == "photographs":
        name = f"folder:{write_windows(out.workdir / f'windows-{size.stride}', size.stride)}"
    found = {kind: _measured(out, size, kind, name) for kind in size.kinds}
    out.text(
        f"Windows of {SIDE}x{SIDE} at f8; {size.num_hiddens} channels at the first size, "
        f"{size.steps} steps of batch {size.batch_size}, absolute error and LPIPS by AlexNet."
    )
    # A column whose weights were not installed, or of a later version than the point, is empty.
    shown = lambda x, key: f"{x[key]:.3f}" if key in x else ""  # noqa: E731
    rows = [[kind, *(shown(x, key) for key in COLUMNS)] for kind, x in found.items()]
    out.table("large_pictures", ["code", *COLUMNS.values()], rows, caption="Test windows.")
    keys = [f"{name.lower()}_at_rate" for name in ("run", *FORMATS)]
    pair = "{:.3f}: {:.2f}".format
    rows = [[kind, *(pair(*x[key]) for key in keys)] for kind, x in found.items()]
    out.table(
        "large_pictures_files", ["code", "this code", *FORMATS], rows,
        caption="Bits a pixel and PSNR in dB of the test windows as one file, and of one mosaic of "
        "them as JPEG and WebP at the nearest rate.",
    )  # fmt: skip
    out.figure("large_pictures", _figure(found), caption="Test windows, and each code's.")


def _figure(found):
    """Returns a figure with the originals in the first row and each kind's below."""
    shown = {"original": next(iter(found.values()))["originals"]}
    shown |= {kind: x["reconstructions"] for kind, x in found.items()}
    count = len(shown["original"])
    figure = style.new_figure(1.5 * count, 1.6 * len(shown))
    for panels, (name, images) in zip(
        figure.subplots(len(shown), count, squeeze=False), shown.items(), strict=True
    ):
        for panel, image in zip(panels, images, strict=True):
            style.picture(panel, image)
        style.row_label(panels[0], name)
    return figure


def config_of(size, settings, name):
    """Returns the config of a run on the images `data.name`."""
    module = laser_imagenette if settings.get("bottleneck") == "ksvd" else vqgan_imagenette
    config = module.get_config()
    config.data.name, config.data.image_size = name, SIDE
    config.data.batch_size = config.eval.batch_size = size.batch_size
    config.num_train_steps = size.steps
    config.eval_every_steps = config.checkpoint_every_steps = -(-size.steps // 4)
    config.log_every_steps = min(50, size.steps)
    config.optimizer.warmup_steps, config.optimizer.accumulate_steps = size.steps // 10, 1
    config.model.num_hiddens, config.model.num_residual_blocks = size.num_hiddens, 1
    config.model.dtype = "float32"
    config.loss.perceptual_net = "alex"
    config.adversarial.weight = 0.0
    config.model.update(settings)
    return config


def _measured(out, size, kind, name):
    settings = size.kinds[kind]
    point = {**size._asdict(), **settings, **source_settings(out.images)}
    del point["kinds"]
    config = config_of(size, settings, name)
    return out.point("large", point, lambda: _computed(out.workdir / "runs", point, config))


def _computed(runs, settings, config):
    workdir = trained_run(runs, settings, config, level=logging.INFO)
    quality = evaluate(config, workdir)
    test = open_split(config.data, "test")
    places = evenly_spaced(test, SHOWN)
    originals = np.stack([test[int(i)] for i in places])
    reconstructions = as_bytes(laser_jax.load(workdir).reconstruct(originals))
    kept = {key: x for key, x in quality.items() if key in COLUMNS or key.endswith("_at_rate")}
    return kept | {"originals": originals, "reconstructions": reconstructions}


def write_windows(folder, stride):
    """Writes the windows of each split as PNG files, those that are missing; returns the folder."""
    for split, names in PHOTOGRAPHS.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        step = 2 * stride if split == "test" else stride
        for name in names:
            photograph = Image.fromarray(read_photograph(name))
            for factor in REDUCTIONS:
                image = np.asarray(photograph.reduce(factor))
                rows, columns = (range(0, side - SIDE + 1, step) for side in image.shape[:2])
                for top, left in ((top, left) for top in rows for left in columns):
                    path = folder / split / f"{name}-{factor}-{top}-{left}.png"
                    if not path.exists():
                        with whole_file(path) as partial:
                            window = image[top : top + SIDE, left : left + SIDE]
                            Image.fromarray(window).save(partial, "PNG")
    return folder


if __name__ == "__main__":
    title = "Autoencoders of 128x128 pictures"
    app.run(results.program("large_pictures", title, run, SIZES))
