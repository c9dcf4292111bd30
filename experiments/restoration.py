"""What denoising and inpainting share: images spoiled to a level, and methods that mend them."""

import functools

import numpy as np

from experiments.overlapping import gray_images
from experiments.photographs import as_bytes
from experiments.results import spread
from laser_jax.figures import style


def compute(out, name, size, compare, *, level, levels):
    """Returns (image, level) -> the point of each seed.

    Args:
      out: the `Results`.
      name: of the points.
      size: has `side` of the images, `seeds`, and the field `levels`.
      compare: function of original, level, seed, source and size to a point; see `described`.
      level, levels: what a level is called in a point's settings, and in `size`.
    """
    shared = {"images": out.images} | {
        field: value for field, value in size._asdict().items() if field not in (levels, "seeds")
    }
    return {
        (image, value): [
            out.point(
                name, {**shared, "image": image, level: value, "seed": seed},
                functools.partial(compare, original, value, seed, out.images, size),
            )
            for seed in range(size.seeds)
        ]
        for image, original in gray_images(out.images, "test", size.side).items()
        for value in getattr(size, levels)
    }  # fmt: skip


def described(original, images, where=None):
    """Returns a point: quality and bytes of each method's image, and the original's bytes.

    Args:
      original: `(H, W)` in [0, 1].
      images: method -> image.
      where: pixels that count, `(H, W)` bool; the quality of all is `whole_*` then.
    """
    found = {"original": as_bytes(original)}
    for name, image in images.items():
        found |= {f"{name}/{x}": y for x, y in quality(original, image, where).items()}
        if where is not None:
            found |= {f"{name}/whole_{x}": y for x, y in quality(original, image).items()}
        found[f"{name}/image"] = as_bytes(image)
    return found


def quality(original, image, where=None):
    """Returns PSNR in dB and SSIM of an image cut to [0, 1], over the pixels `where`, or all."""
    from skimage.metrics import structural_similarity

    image = np.clip(image, 0, 1)
    squared = (np.float64(image) - original) ** 2
    ssim, each = structural_similarity(original, image, data_range=1.0, full=True)
    return {
        "psnr": float(-10 * np.log10(np.mean(squared if where is None else squared[where]))),
        "ssim": float(ssim if where is None else np.mean(each[where])),
    }


def rows(points, methods, measure, form):
    """Returns a table's rows, mean and deviation over the seeds of `points[image, level]`."""
    return [
        [*key, *(spread([point[f"{name}/{measure}"] for point in seeds], form) for name in methods)]
        for key, seeds in points.items()
    ]


def means(points, methods, level, measure):
    """Returns method -> mean over images and seeds, and image -> its best method."""
    mean = {
        image: {name: np.mean([point[f"{name}/{measure}"] for point in seeds]) for name in methods}
        for (image, at), seeds in points.items()
        if at == level
    }
    overall = {name: np.mean([each[name] for each in mean.values()]) for name in methods}
    return overall, {image: max(each, key=each.get) for image, each in mean.items()}


def winners(best):
    """Returns a sentence on which method is best on which image."""
    if len(set(best.values())) == 1:
        return "It is best on every image."
    images = {name: [i for i, n in best.items() if n == name] for name in best.values()}
    each = "; ".join(f"{name} on {' and '.join(where)}" for name, where in images.items())
    return f"Image by image the best is: {each}."


def draw(panels, point, methods):
    """Draws a point's original and the image of each method, with its quality."""
    gray = {"cmap": "gray", "vmin": 0, "vmax": 255}
    style.picture(panels[0], point["original"], title="original\n", **gray)
    for axes, name in zip(panels[1:], methods, strict=True):
        title = f"{name}\n{point[f'{name}/psnr']:.2f} dB, SSIM {point[f'{name}/ssim']:.3f}"
        style.picture(axes, point[f"{name}/image"], title=title, **gray)
