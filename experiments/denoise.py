"""Denoising by sparse codes of overlapping patches (Elad and Aharon 2006).

    python -m experiments.denoise --workdir=runs/full/denoise

Each 8x8 patch, its mean taken away, gets as few atoms as bring its error down to what the noise
alone would leave; all approximations are averaged. Three dictionaries: a DCT, one learned on other
photographs, one learned from the noisy image itself; beside them scikit-image's non-local means
and total variation.

References:
  Elad and Aharon, Image denoising via sparse and redundant representations over learned
  dictionaries, 2006.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from experiments import results
from experiments.overlapping import (
    PATCH,
    average,
    overlapping_patches,
    training_dictionary,
)
from experiments.restoration import compute, described, draw, means, rows, winners
from laser_jax.figures import style
from laser_jax.figures.sheets import atom_sheet
from laser_jax.sparse import (
    dct_dictionary,
    decode,
    ksvd_sweep,
    omp,
    replace_atoms,
)

GAIN = 1.15  # C in the paper
NOISY, DCT, OTHERS, ITSELF = "noisy", "DCT", "K-SVD of photographs", "K-SVD of the noisy image"
NLM, TV = "non-local means", "total variation"
METHODS = (NOISY, DCT, OTHERS, ITSELF, NLM, TV)
TV_WEIGHTS = (0.02, 0.04, 0.07, 0.11, 0.16, 0.24, 0.35)
SHOWN_SIGMA = 25


class Size(NamedTuple):
    """How large a run is.

    Attributes:
      side: of the images.
      sigmas: standard deviations of the noise, in units of 1/255.
      seeds: of the noise.
      frequencies: their square is the number of atoms, of every dictionary.
      sparsity: the most atoms of a patch.
      patches, iterations: that dictionaries learn from.
    """

    side: int = 256
    sigmas: tuple = (10, 25, 50)
    seeds: int = 3
    frequencies: int = 16
    sparsity: int = 32
    patches: int = 20_000
    iterations: int = 10


SIZES = {
    "small": Size(side=128, seeds=1, patches=8000, iterations=5),
    "full": Size(),
}


def denoise(noisy, dictionary, sigma, *, sparsity):
    """Returns the denoised image `(H, W)`.

    Args:
      noisy: `(H, W)`, in [0, 1] before the noise.
      dictionary: `(m, p p)`.
      sigma: standard deviation of the noise, in units of 1/255.
      sparsity: the most atoms of a patch.
    """
    patches = overlapping_patches(noisy, PATCH)
    offsets = patches.mean(-1, keepdims=True)
    code = encode(jnp.asarray(patches - offsets), dictionary, sigma, sparsity=sparsity)
    clean = np.asarray(decode(code, dictionary)) + offsets
    return average(clean, noisy, weight=30 / sigma)  # their lambda; a patch's vote is 1


@functools.partial(jax.jit, static_argnames="sparsity")
def encode(patches, dictionary, sigma, *, sparsity):
    """Returns the sparsest code greed finds within the noise's energy."""
    tolerance = PATCH**2 * (GAIN * sigma / 255) ** 2
    return omp(patches, dictionary, sparsity=sparsity, tolerance=tolerance)


def learn_from(noisy, sigma, size):
    """Returns a dictionary learned from a noisy image's own patches, begun at the DCT."""
    rng = np.random.default_rng(0)
    patches = overlapping_patches(noisy, PATCH).reshape(-1, PATCH**2)
    patches = rng.permutation(patches)[: size.patches]
    patches = jnp.asarray(patches - patches.mean(-1, keepdims=True))
    dictionary = dct_dictionary(PATCH, size.frequencies)
    for i in range(size.iterations):
        code = encode(patches, dictionary, sigma, sparsity=size.sparsity)
        dictionary, code = ksvd_sweep(patches, dictionary, code, method="approximate")
        if i < size.iterations - 1:
            dictionary = replace_atoms(
                patches, dictionary, code, max_coherence=0.99, key=jax.random.key(i), min_count=3
            )
    return dictionary


def compare(original, sigma, seed, source, size):
    """Returns the quality of every method on an image with noise, and their images."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    rng = np.random.default_rng(seed)
    noisy = np.float32(original + sigma / 255 * rng.standard_normal(original.shape))
    own = learn_from(noisy, sigma, size)
    dictionaries = {
        DCT: dct_dictionary(PATCH, size.frequencies),
        OTHERS: training_dictionary(source, size, 6),
        ITSELF: own,
    }
    images = {NOISY: noisy}
    for name, dictionary in dictionaries.items():
        images[name] = denoise(noisy, dictionary, sigma, sparsity=size.sparsity)
    s = sigma / 255  # scikit-image's own choice of h beside a known sigma
    images[NLM] = denoise_nl_means(
        noisy, patch_size=5, patch_distance=6, h=0.8 * s, sigma=s, fast_mode=True
    )
    for weight in TV_WEIGHTS:
        images[f"{TV} {weight}"] = np.float32(denoise_tv_chambolle(noisy, weight=weight))
    return {"atoms": np.asarray(own), **described(original, images)}


def choose_tv_weight(points, sigma):
    """Makes the weight of the best mean PSNR that of total variation, and returns it."""
    chosen = [point for (_, s), seeds in points.items() if s == sigma for point in seeds]
    best = max(TV_WEIGHTS, key=lambda w: np.mean([point[f"{TV} {w}/psnr"] for point in chosen]))
    for point in chosen:
        point.update({f"{TV}/{x}": point[f"{TV} {best}/{x}"] for x in ("psnr", "ssim", "image")})
    return best


def run(out, size):
    """Denoises every image at every noise, and lays out the report."""
    points = compute(out, "denoise", size, compare, level="sigma", levels="sigmas")
    weights = {sigma: choose_tv_weight(points, sigma) for sigma in size.sigmas}
    out.text(verdict(size, points))
    header = ["image", "sigma", *METHODS]
    for measure, form in (("psnr", "{:.2f}"), ("ssim", "{:.3f}")):
        out.table(
            measure, header, rows(points, METHODS, measure, form),
            caption=f"{'PSNR, dB' if measure == 'psnr' else 'SSIM'}; {size.side}x{size.side} gray "
            f"images, {size.frequencies**2} atoms, mean ± standard deviation over {size.seeds} "
            "noise seed(s). All are cut to [0, 1], which lifts the PSNR of the noisy one. Total "
            f"variation has the one of {len(TV_WEIGHTS)} weights of best mean PSNR over these very "
            f"images, which favours it: {', '.join(f'{w} at {s}' for s, w in weights.items())}.",
        )  # fmt: skip
    sigma = SHOWN_SIGMA if SHOWN_SIGMA in size.sigmas else size.sigmas[0]
    name, _ = list(points)[-1]
    point = points[name, sigma][0]
    out.figure(
        "images", image_figure(point),
        caption=f"{name}, sigma {sigma}, and the dictionary learned from the noisy image.",
    )  # fmt: skip


def verdict(size, points):
    """Returns which method wins where, and what learning from the image itself gains."""
    lines = []
    for sigma in size.sigmas:
        mean, best = means(points, METHODS, sigma, "psnr")
        each = ", ".join(f"{name} {mean[name]:.2f}" for name in METHODS)
        lines.append(
            f"- Sigma {sigma}: **{max(mean, key=mean.get)}** is best, mean PSNR over the images in "
            f"dB: {each}. {winners(best)} The dictionary learned from the noisy image gains "
            f"{mean[ITSELF] - mean[DCT]:+.2f} dB on the DCT, {mean[ITSELF] - mean[OTHERS]:+.2f} on "
            f"the one of other photographs and {mean[ITSELF] - mean[NLM]:+.2f} on non-local means."
        )
    return "\n".join(lines)


def image_figure(point):
    """Returns a figure of the original, every method's image, and the learned dictionary."""
    figure = style.new_figure(8, 4.8)
    panels = figure.subplots(2, 4).ravel()
    draw(panels[:-1], point, METHODS)
    atoms = point["atoms"]
    scaled = 0.5 + 0.5 * atoms / np.abs(atoms).max(-1, keepdims=True)
    sheet = atom_sheet(np.repeat(scaled.reshape(len(atoms), PATCH, PATCH, 1), 3, -1))
    style.picture(panels[-1], sheet, title=f"dictionary,\n{ITSELF}")
    return figure


if __name__ == "__main__":
    app.run(results.program("denoise", "Denoising by sparse codes of patches", run, SIZES))
