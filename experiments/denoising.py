"""Denoising and inpainting with learned dictionaries, beside BM3D and non-local means.

    python -m experiments.denoising          (pip install bm3d)

The method is K-SVD denoising (Elad and Aharon 2006): every overlapping patch gets the sparsest code
within the noise, and a pixel is the mean of its patches. Atoms start as those of the training
photographs and learn from the noisy picture. Colour patches are 8x8x3 (Mairal, Elad and Sapiro
2008). Pictures are the test photographs, at most 512 pixels a side. Seconds are of the
processor, all cores together, compilation apart.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from skimage.restoration import denoise_nl_means, inpaint_biharmonic

from experiments import results
from experiments.photographs import middle, photographs, random_patches
from experiments.timing import machine
from laser_jax.sparse import DictionaryLearner, average_patches, decode, extract_patches, omp

PATCH = 8
STAGES = 2, 8, 32  # atoms a patch: more only for the patches that need them
CHUNK = 8192  # patches coded at a time
# The pixels of a patch have noise of 1.15 sigma at most, and the noisy picture 0.12 / sigma votes
# beside the 64 patches of a pixel (Elad and Aharon 2006).
GAIN, VOTE = 1.15, 0.12


@dataclasses.dataclass(frozen=True)
class Size:
    """Numbers of an experiment."""

    side: int
    sigmas: tuple  # of the noise, in units of 1/255
    missing: tuple  # shares of the pixels
    gray_atoms: int
    color_atoms: int
    patches: int  # of the photographs
    passes: int  # over the photographs' patches
    picture_batches: int  # of the picture's own patches
    sweep: int  # patches a batch


SIZES = {
    "small": Size(128, (25,), (0.75,), 128, 128, 16_384, 4, 4, 4096),
    "full": Size(512, (10, 25, 50), (0.5, 0.75), 256, 512, 65_536, 3, 24, 8192),
}


def run(out, size):
    """Restores every picture by every method, and adds the tables."""
    if out.images != "photographs":
        raise ValueError(f"denoising is of the photographs; leave out --images={out.images}.")
    pictures = {"gray": gray_pictures(size.side), "colour": color_pictures(size.side)}
    atoms = {kind: _photographs_atoms(out, size, kind) for kind, x in pictures.items() if x}
    places = [(kind, name) for kind, images in pictures.items() for name in images]
    rows = []
    for kind, name in places:
        for sigma in size.sigmas:
            settings = {**_settings(size), "kind": kind, "name": name, "sigma": sigma}
            image = pictures[kind][name]
            found = out.point(
                "denoise", settings,
                functools.partial(denoise_by_all, image, sigma / 255, atoms[kind], size),
            )  # fmt: skip
            rows.append([kind, name, sigma, *_cells(found, METHODS)])
    header = [f"{name}: dB (s)" for name in METHODS]
    out.table("denoising", ["", "picture", "sigma", "noisy: dB", *header], rows)
    rows = []
    for kind, name in places:
        for missing in size.missing:
            settings = {**_settings(size), "kind": kind, "name": name, "missing": missing}
            image = pictures[kind][name]
            found = out.point(
                "inpaint", settings,
                functools.partial(inpaint_by_all, image, missing, atoms[kind]),
            )  # fmt: skip
            rows.append([kind, name, f"{missing:.0%}", *_cells(found, FILLERS)])
    header = [f"{name}: dB (s)" for name in FILLERS]
    out.table(
        "inpainting", ["", "picture", "missing", "damaged: dB", *header], rows,
        caption="PSNR of the missing pixels.",
    )  # fmt: skip


def _cells(found, methods):
    each = (f"{found[name]:.2f} ({found[f'{name} seconds']:.1f})" for name in methods)
    return [f"{found['before']:.2f}", *each]


def _settings(size):
    return dataclasses.asdict(size) | {"sigmas": 0, "missing": 0} | machine()


def color_pictures(side):
    return {name: middle(image, side) for name, image in photographs("test").items()}


def gray_pictures(side):
    return {name: gray(image) for name, image in color_pictures(side).items()}


def gray(image):
    """Returns `(H, W, 1)` of `(H, W, 3)`."""
    return (image @ np.float32([0.299, 0.587, 0.114]))[..., None]


def split_means(patches):
    """Returns patches `(n, 64 C)` without the mean of each channel, and those means."""
    channels = patches.reshape(len(patches), PATCH**2, -1)
    means = np.broadcast_to(channels.mean(1, keepdims=True), channels.shape)
    return (channels - means).reshape(patches.shape), means.reshape(patches.shape)


def _photographs_atoms(out, size, kind):
    """Returns the dictionary of the training photographs' patches."""

    def learn():
        images = list(photographs("train").values())
        if kind == "gray":
            images = [gray(image) for image in images]
        rows = split_means(random_patches(images, PATCH, size.patches, seed=0))[0]
        learner = DictionaryLearner(
            size.gray_atoms if kind == "gray" else size.color_atoms, 6,
            method="approximate", batch_size=size.sweep,
        )  # fmt: skip
        batches = (rows for _ in range(size.passes))
        return {"dictionary": np.asarray(learner.fit(batches, jax.random.key(0)).dictionary)}

    settings = {**_settings(size), "kind": kind}
    return out.point("atoms", settings, learn)["dictionary"]


def learn_from(rows, dictionary, sigma, size, batches):
    """Returns the dictionary after learning from a noisy picture's patches `(n, d)`."""
    learner = DictionaryLearner(
        len(dictionary), STAGES[1], method="approximate", batch_size=size.sweep,
        coder=_noise_coder(rows.shape[1]),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    # Over sigma, so that one compiled program serves all of them.
    some = (rows[rng.integers(len(rows), size=size.sweep)] / sigma for _ in range(batches))
    state = learner.init(jax.random.key(0), dictionary=dictionary)
    state = state._replace(scale=jnp.ones(()))  # the tolerance is of signals as they are
    return learner.fit(some, jax.random.key(0), state=state).dictionary


@functools.cache  # a function of its own would be compiled again
def _noise_coder(width):
    return functools.partial(omp, tolerance=width * GAIN**2)


def denoise(noisy, dictionary, sigma, size, batches):
    """Returns a picture `(H, W, C)` without noise of standard deviation `sigma`.

    The dictionary first learns from so many batches of the picture's patches.
    """
    patches = np.asarray(extract_patches(noisy, patch_size=PATCH))
    rows, means = split_means(patches)
    if batches:
        dictionary = learn_from(rows, dictionary, sigma, size, batches)
    allowed = np.full(len(rows), rows.shape[1] * (GAIN * sigma) ** 2, np.float32)
    clean = sparsest(rows, dictionary, allowed) + means
    average = np.asarray(average_patches(clean, noisy.shape, patch_size=PATCH))
    vote = VOTE / sigma / PATCH**2
    return (average + vote * noisy) / (1 + vote)


def inpaint(damaged, mask, dictionary):
    """Returns a picture `(H, W, C)` whose pixels of mask 0 are filled in."""
    patches, known = (
        np.asarray(extract_patches(x, patch_size=PATCH)) for x in (damaged * mask, mask)
    )
    channels = known.reshape(len(known), PATCH**2, -1)
    count = channels.sum(1, keepdims=True)
    means = patches.reshape(channels.shape).sum(1, keepdims=True) / np.maximum(count, 1)
    means = np.broadcast_to(means, channels.shape).reshape(known.shape)
    allowed = np.float32(known.sum(-1) * (2 / 255) ** 2)
    filled = sparsest((patches - means) * known, dictionary, allowed, mask=known, stages=(6,))
    whole = np.clip(filled + means, 0, 1)
    weights = np.float32(known.sum(-1) > 0)
    average = average_patches(whole, mask.shape, patch_size=PATCH, weights=weights)
    return np.where(mask > 0, damaged, average)


def sparsest(rows, dictionary, allowed, *, mask=None, stages=STAGES):
    """Returns approximations `(n, d)` with squared errors of at most `allowed`, `(n,)`.

    Most patches need few atoms, so those that need more are coded again with more.
    """
    found, todo = np.zeros_like(rows), np.arange(len(rows))
    dictionary, masks = jnp.asarray(dictionary), () if mask is None else (mask,)
    for sparsity in stages:
        left = []
        for start in range(0, len(todo), CHUNK):
            own = todo[start : start + CHUNK]
            padded = np.pad(own, (0, CHUNK - len(own)), "edge")
            block = (jnp.asarray(x[padded]) for x in (rows, allowed, *masks))
            approximation, over = _code(dictionary, *block, sparsity=sparsity)
            found[own] = approximation[: len(own)]
            left.append(own[np.asarray(over)[: len(own)]])
        todo = np.concatenate(left) if left else todo
    return found


@functools.partial(jax.jit, static_argnames="sparsity")
def _code(dictionary, rows, allowed, mask=None, *, sparsity):
    selection = "correlation" if mask is None else "ols"
    code = omp(
        rows, dictionary, sparsity=sparsity, tolerance=allowed, mask=mask, selection=selection
    )
    approximation = decode(code, dictionary)
    squares = (rows - approximation) ** 2 * (1 if mask is None else mask)
    return approximation, jnp.sum(squares, -1) > 1.0001 * allowed


def by_bm3d(noisy, sigma):
    """Returns the picture that BM3D makes of a noisy one."""
    import bm3d  # the extra `experiments`; free for non-commercial use

    if noisy.shape[-1] == 1:
        return bm3d.bm3d(noisy[..., 0], sigma)[..., None]
    return bm3d.bm3d_rgb(noisy, sigma)


def by_means(noisy, sigma):
    """Returns the picture that scikit-image's non-local means make of a noisy one."""
    options = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma}
    if noisy.shape[-1] == 1:  # as a picture of one channel it comes out wrong
        return denoise_nl_means(noisy[..., 0], **options)[..., None]
    return denoise_nl_means(noisy, channel_axis=-1, **options)


METHODS = "itself", "photographs", "BM3D", "NL means"
FILLERS = "photographs", "biharmonic"


def denoise_by_all(image, sigma, dictionary, size):
    """Returns PSNR and seconds of each method on one noisy picture."""
    noise = np.random.default_rng(0).standard_normal(image.shape)
    noisy = np.float32(image + sigma * noise)
    own = functools.partial(denoise, noisy, dictionary, sigma, size)
    _compile(noisy, dictionary, sigma, size)
    runs = {
        "itself": lambda: own(size.picture_batches), "photographs": lambda: own(0),
        "BM3D": lambda: by_bm3d(noisy, sigma), "NL means": lambda: by_means(noisy, sigma),
    }  # fmt: skip
    return {"before": psnr(noisy, image)} | _measured(runs, image)


def _compile(noisy, dictionary, sigma, size):
    """Compiles what `denoise` takes."""
    patches = np.asarray(extract_patches(noisy, patch_size=PATCH))
    learn_from(patches[:CHUNK], dictionary, sigma, size, 1)
    sparsest(patches[:1], dictionary, np.zeros(1, np.float32))
    average_patches(patches, noisy.shape, patch_size=PATCH)


def inpaint_by_all(image, missing, dictionary):
    """Returns PSNR of the missing pixels and seconds of each method on one picture."""
    known = np.random.default_rng(0).random((*image.shape[:2], 1)) >= missing
    mask = np.broadcast_to(np.float32(known), image.shape)
    damaged, holes = image * mask, mask == 0
    own = functools.partial(inpaint, damaged, mask, dictionary)
    own()  # compiles
    runs = {
        "photographs": own,
        "biharmonic": lambda: inpaint_biharmonic(damaged, ~known[..., 0], channel_axis=-1),
    }
    return {"before": psnr(damaged, image, holes)} | _measured(runs, image, holes)


def _measured(runs, image, where=slice(None)):
    found = {}
    for name, run in runs.items():
        start = time.process_time()
        restored = np.asarray(run())
        found[f"{name} seconds"] = time.process_time() - start
        found[name] = psnr(restored, image, where)
    return found


def psnr(image, original, where=slice(None)):
    return float(-10 * np.log10(np.mean((np.clip(image, 0, 1) - original)[where] ** 2)))


if __name__ == "__main__":
    title = "Denoising and inpainting with learned dictionaries"
    app.run(results.program("denoising", title, run, SIZES))
