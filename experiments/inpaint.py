"""Filling in missing pixels by sparse codes of the pixels that are left.

    python -m experiments.inpaint --workdir=runs/full/inpaint

Each overlapping 8x8 patch is coded on its observed pixels alone, by OMP in a dictionary whose atoms
are cut to them and scaled anew; the same combination of whole atoms fills in the rest, and all
approximations are averaged. Beside it scikit-image's biharmonic equation and linear interpolation.

References:
  Mairal, Elad and Sapiro, Sparse representation for color image restoration, 2008.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from experiments import results
from experiments.overlapping import PATCH, average, overlapping_patches, training_dictionary
from experiments.restoration import compute, described, draw, means, rows, winners
from laser_jax.figures import style
from laser_jax.sparse import dct_dictionary
from laser_jax.sparse.linalg import map_blocks, matmul, row_argmax

DAMAGED, LINEAR, BIHARMONIC = "damaged", "linear interpolation", "biharmonic"
DCT, LEARNED = "OMP, DCT", "OMP, K-SVD of photographs"
METHODS = (DAMAGED, LINEAR, BIHARMONIC, DCT, LEARNED)


class Size(NamedTuple):
    """How large a run is.

    Attributes:
      side: of the images.
      missing: shares of the pixels.
      seeds: of the masks.
      frequencies: their square is the number of atoms, of both dictionaries.
      sparsity: the most atoms of a patch.
      patches, iterations: that the dictionary learns from.
    """

    side: int = 192
    missing: tuple = (0.5, 0.75)
    seeds: int = 3
    frequencies: int = 16
    sparsity: int = 6
    patches: int = 20_000
    iterations: int = 15


SIZES = {"small": Size(side=96, seeds=1, patches=8000, iterations=5), "full": Size()}
TOLERANCE = (2 / 255) ** 2  # squared error of an observed pixel at which a patch is done
LEAST = 0.1  # share of an atom that must be new beside those chosen: less of it blows up the rest
UNKNOWN = 1e-6  # vote of a patch without an observed pixel: it counts only where no other does
BLOCK = 512
MEASURES = {
    "psnr": ("PSNR of the missing pixels, dB", "{:.2f}"),
    "ssim": ("SSIM at the missing pixels", "{:.3f}"),
    "whole_psnr": ("PSNR of the whole image, dB", "{:.2f}"),
    "whole_ssim": ("SSIM of the whole image", "{:.3f}"),
}


@functools.partial(jax.jit, static_argnames="sparsity")
def masked_omp(patches, masks, dictionary, *, sparsity):
    """Returns patches approximated from their observed pixels, `(n, d)`.

    OMP on the observed pixels: the atom most correlated with the residual, as a cosine among
    these pixels, then least squares by Gram-Schmidt. Whatever makes an observed direction
    orthogonal is done to the whole atoms too, so the approximation needs no solve.

    Args:
      patches: `(n, d)`; what is not observed is never read.
      masks: `(n, d)` of 1 where observed, 0 where not.
      dictionary: `(m, d)` unit atoms.
      sparsity: the most atoms of a patch.
    """

    def code_rows(block):
        patches, masks = block
        norms = jnp.sqrt(matmul(masks, (dictionary**2).T)) + 1e-6
        residual = patches * masks
        enough = TOLERANCE * jnp.sum(masks, -1)
        observed, whole = [], []  # orthonormal directions, and what they are of whole atoms
        approximation = jnp.zeros_like(residual)
        active = jnp.ones(len(residual), bool)
        for _ in range(sparsity):
            active &= jnp.sum(residual**2, -1) > enough
            cosines = jnp.abs(matmul(residual, dictionary.T)) / norms
            index, _ = row_argmax(cosines)
            atom = dictionary[index]
            size = jnp.take_along_axis(norms, index[:, None], 1)
            direction, full = atom * masks / size, atom / size
            for q, f in zip(observed, whole, strict=True):
                along = jnp.sum(direction * q, -1, keepdims=True)
                direction, full = direction - along * q, full - along * f
            length = jnp.sqrt(jnp.sum(direction**2, -1, keepdims=True))
            active &= length[:, 0] > LEAST
            scale = jnp.where(active[:, None], 1 / jnp.maximum(length, LEAST), 0)
            direction, full = direction * scale, full * scale
            projection = jnp.sum(residual * direction, -1, keepdims=True)
            residual = residual - projection * direction
            approximation = approximation + projection * full
            observed.append(direction)
            whole.append(full)
        return approximation

    return map_blocks(code_rows, (patches, masks), BLOCK)


def inpaint(damaged, mask, dictionary, *, sparsity):
    """Returns the image `(H, W)`; pixels where `mask` is 1 stay as they are.

    Where no patch with an observed pixel reaches it is the mean of all observed pixels.
    """
    patches, masks = (overlapping_patches(x, PATCH) for x in (damaged * mask, mask))
    count = masks.sum(-1, keepdims=True)
    everywhere = np.sum(damaged * mask) / np.maximum(np.sum(mask), 1)
    offsets = np.where(count > 0, patches.sum(-1, keepdims=True) / np.maximum(count, 1), everywhere)
    found = masked_omp(
        jnp.asarray((patches - offsets) * masks), jnp.asarray(masks), dictionary, sparsity=sparsity
    )
    votes = np.where(count[..., 0] > 0, 1, UNKNOWN)
    filled = average(np.asarray(found) + offsets, damaged, weight=0, votes=votes)
    return np.where(mask > 0, damaged, filled)


def linear(damaged, mask):
    """Returns the image by linear interpolation between observed pixels, at the rim the nearest."""
    from scipy.interpolate import griddata
    from threadpoolctl import threadpool_limits

    known, everywhere = np.argwhere(mask > 0), np.argwhere(mask >= 0)
    values = damaged[mask > 0]
    with threadpool_limits(1, "blas"):  # a 2x2 solve a triangle: threads would only wait
        found, nearest = (griddata(known, values, everywhere, how) for how in ("linear", "nearest"))
    return np.where(np.isnan(found), nearest, found).reshape(mask.shape).astype(np.float32)


def compare(original, missing, seed, source, size):
    """Returns the quality of every method on an image with missing pixels, and their images."""
    from skimage.restoration import inpaint_biharmonic

    rng = np.random.default_rng(seed)
    mask = np.float32(rng.random(original.shape) >= missing)
    damaged = original * mask
    images = {
        DAMAGED: damaged,
        LINEAR: linear(damaged, mask),
        BIHARMONIC: np.float32(inpaint_biharmonic(damaged, mask == 0)),
    }
    dictionaries = {
        DCT: dct_dictionary(PATCH, size.frequencies),
        LEARNED: training_dictionary(source, size, 5),
    }
    for name, dictionary in dictionaries.items():
        images[name] = inpaint(damaged, mask, dictionary, sparsity=size.sparsity)
    return described(original, images, mask == 0)


def run(out, size):
    """Inpaints every image at every share, and lays out the report."""
    points = compute(out, "inpaint", size, compare, level="missing", levels="missing")
    out.text(verdict(size, points))
    shown = {(name, f"{missing:.0%}"): seeds for (name, missing), seeds in points.items()}
    for measure, (what, form) in MEASURES.items():
        out.table(
            measure, ["image", "missing", *METHODS], rows(shown, METHODS, measure, form),
            caption=f"{what}; {size.side}x{size.side} gray images, {size.frequencies**2} atoms, "
            f"mean ± standard deviation over {size.seeds} mask(s).",
        )  # fmt: skip
    name, missing = list(points)[-1]
    out.figure(
        "images", image_figure(points[name, missing][0]),
        caption=f"{name}, {missing:.0%} of its pixels missing; PSNR and SSIM over these.",
    )  # fmt: skip


def verdict(size, points):
    """Returns which method wins where."""
    lines = []
    for missing in size.missing:
        mean, best = means(points, METHODS, missing, "psnr")
        each = ", ".join(f"{name} {mean[name]:.2f}" for name in METHODS[1:])
        lines.append(
            f"- {missing:.0%} missing: **{max(mean, key=mean.get)}** is best, mean PSNR of the "
            f"missing pixels over the images in dB: {each}. {winners(best)} The learned dictionary "
            f"gains {mean[LEARNED] - mean[DCT]:+.2f} dB on the DCT, "
            f"{mean[LEARNED] - mean[BIHARMONIC]:+.2f} on the biharmonic equation."
        )
    return "\n".join(lines)


def image_figure(point):
    """Returns a figure of the original and of every method's image."""
    figure = style.new_figure(8, 5.8)
    draw(figure.subplots(2, 3).ravel(), point, METHODS)
    return figure


if __name__ == "__main__":
    app.run(results.program("inpaint", "Inpainting by sparse codes of patches", run, SIZES))
