# %% [markdown]
# # Denoise and inpaint with a dictionary
#
# This tutorial removes noise and fills in missing pixels. Photographs are sparse in a dictionary
# learned on photographs, but noise is not. So the sparsest code whose error is that of the noise is
# close to the photograph without noise (Elad and Aharon 2006), and a code fitted to the known
# pixels predicts the missing ones (Mairal, Elad and Sapiro 2008). Both methods code every
# overlapping patch and average the results. Only `laser_jax.sparse` is needed; scikit-image has the
# methods to compare with.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, inpaint_biharmonic

from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph
from laser_jax.sparse import (
    average_patches,
    dct_dictionary,
    decode,
    extract_patches,
    fit_dictionary,
    ksvd_sweep,
    omp,
    replace_atoms,
)

PATCH = 8
FREQUENCIES = 16  # their square is the number of atoms
SIDE = 256  # of the pictures that are denoised
SMALL_SIDE = 192  # of the pictures that are inpainted
SIGMAS = (25,)  # standard deviations of the noise, in units of 1/255
MISSING = (0.5, 0.75)  # shares of the pixels
SEEDS = 1  # of noise and masks
PATCHES = 20_000  # that dictionaries learn from
ITERATIONS = 10

# %% [markdown]
# ## Pictures and dictionaries
#
# Five photographs to learn from and three others to restore, in gray. The first dictionary is not
# learned: an overcomplete DCT. The second one is learned by K-SVD from the five photographs.


# %%
def gray(image):
    """A photograph as `(H, W, 1)` in [0, 1]."""
    return np.float32(image @ np.float32([0.299, 0.587, 0.114]))[..., None] / 255


def middle(image, side):
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def without_mean(patches):
    return patches - patches.mean(-1, keepdims=True)


def sample(images, seed=0):
    """Patches at random places, without their means."""
    rng = np.random.default_rng(seed)
    found = [np.asarray(extract_patches(image, patch_size=PATCH)) for image in images]
    found = [rng.choice(patches, PATCHES // len(images)) for patches in found]
    return jnp.asarray(without_mean(np.concatenate(found)))


tests = {name: gray(read_photograph(name)) for name in PHOTOGRAPHS["test"]}
tests["camera"] = np.float32(skimage.data.camera())[..., None] / 255
train = sample([gray(read_photograph(name)) for name in PHOTOGRAPHS["train"]])
dct = dct_dictionary(PATCH, FREQUENCIES)
learned = fit_dictionary(
    train,
    num_atoms=FREQUENCIES**2,
    sparsity=6,
    method="approximate",
    iterations=ITERATIONS,
    key=jax.random.key(0),
).dictionary

# %% [markdown]
# ## Denoising
#
# Each patch gets as few atoms as bring its error down to that of the noise, `(1.15 sigma)^2` a
# pixel. `average_patches` takes the mean of the 64 approximations of each pixel. The noisy picture
# itself gets a small weight: 0.12 / sigma against 64.


# %%
def encode(patches, dictionary, sigma):
    return omp(patches, dictionary, sparsity=32, tolerance=PATCH**2 * (1.15 * sigma) ** 2)


def denoise(noisy, dictionary, sigma):
    patches = extract_patches(noisy, patch_size=PATCH)
    rows = without_mean(patches)
    clean = decode(encode(rows, dictionary, sigma), dictionary) + (patches - rows)
    vote = 0.12 / sigma / PATCH**2
    average = average_patches(clean, noisy.shape, patch_size=PATCH)
    return (average + vote * noisy) / (1 + vote)


# %% [markdown]
# A third dictionary is learned from the noisy picture's own patches. The loop is that of
# `fit_dictionary`, but a code ends when its error reaches that of the noise, so that the atoms do
# not learn the noise.


# %%
def learn_from(noisy, sigma):
    patches, dictionary = sample([noisy]), dct
    for i in range(ITERATIONS):
        code = encode(patches, dictionary, sigma)
        dictionary, code = ksvd_sweep(patches, dictionary, code, method="approximate")
        if i < ITERATIONS - 1:
            dictionary = replace_atoms(
                patches, dictionary, code, max_coherence=0.99, min_count=3, key=jax.random.key(i)
            )
    return dictionary


def psnr(image, original, where=slice(None)):
    return float(-10 * np.log10(np.mean((np.clip(image, 0, 1) - original)[where] ** 2)))


def denoise_by_all(original, sigma, seed):
    """The noisy picture and what each method makes of it."""
    noise = np.random.default_rng(seed).standard_normal(original.shape)
    noisy = np.float32(original + sigma * noise)
    total_variation = [
        denoise_tv_chambolle(noisy[..., 0], weight=weight)[..., None]
        for weight in (0.02, 0.04, 0.07, 0.11, 0.16, 0.24, 0.35)
    ]
    return {
        "noisy": noisy,
        "DCT": denoise(noisy, dct, sigma),
        "photographs": denoise(noisy, learned, sigma),
        "itself": denoise(noisy, learn_from(noisy, sigma), sigma),
        "NL means": denoise_nl_means(
            noisy[..., 0], patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma
        )[..., None],
        # The best weight for each picture, which favours this method.
        "TV": max(total_variation, key=lambda image: psnr(image, original)),
    }


# %% [markdown]
# PSNR in dB on pictures of 256x256 pixels. *DCT*, *photographs* and *itself* are the dictionaries;
# *NL means* and *TV* (total variation) are scikit-image's methods.


# %%
def print_table(what, found):
    """Prints the PSNR of each picture, mean over the seeds, and the mean over the pictures."""
    names = list(found[0][2])
    print(f"{what:10}{'picture':10}" + "".join(f"{name:>13}" for name in names))
    for level in dict.fromkeys(level for level, _, _ in found):
        rows = {}
        for _, picture, values in (row for row in found if row[0] == level):
            for key in (picture, "mean"):
                rows.setdefault(key, []).append([values[name] for name in names])
        for picture, values in sorted(rows.items(), key=lambda row: row[0] == "mean"):
            each = "".join(f"{value:13.2f}" for value in np.mean(values, 0))
            print(f"{level:<10}{picture:10}{each}")


def draw(images, original, where=slice(None)):
    """Draws pictures beside the original, with their PSNR."""
    images = {"original": original} | images
    columns = -(-len(images) // 2)
    figure, axes = plt.subplots(2, columns, figsize=(9, 20 / columns))
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (name, image) in zip(axes.ravel(), images.items(), strict=False):
        axis.imshow(np.asarray(image)[..., 0], cmap="gray", vmin=0, vmax=1)
        value = "" if name == "original" else f", {psnr(image, original, where):.1f} dB"
        axis.set_title(f"{name}{value}", fontsize=9)
    figure.tight_layout()
    plt.show()


found = []
for sigma in SIGMAS:
    for name, original in tests.items():
        for seed in range(SEEDS):
            original = middle(original, SIDE)
            denoised = denoise_by_all(original, sigma / 255, seed)
            values = {method: psnr(image, original) for method, image in denoised.items()}
            found.append((sigma, name, values))
print_table("sigma", found)

# %%
draw(denoised, original)  # the last one: the camera, with the most noise

# %% [markdown]
# ## Inpainting
#
# `mask` is 1 where a pixel is known and 0 where it is missing. `omp` codes a patch by its known
# pixels alone, up to an error of 2 gray levels a known pixel, and the same combination of whole
# atoms fills in the others. A patch without a known pixel gets weight 0. Sparsity, tolerance and
# selection were chosen on the five photographs, each with a dictionary learned without that
# photograph. There, orthogonal least squares (`selection="ols"`) gave 0.06 dB more than OMP; 4
# atoms instead of 6 gave 0.08 dB less, and 8 no more.


# %%
def inpaint(damaged, mask, dictionary):
    patches, known = (extract_patches(x, patch_size=PATCH) for x in (damaged * mask, mask))
    count = known.sum(-1, keepdims=True)
    means = patches.sum(-1, keepdims=True) / jnp.maximum(count, 1)
    code = omp(
        patches - means,
        dictionary,
        mask=known,
        sparsity=6,
        tolerance=count[..., 0] * (2 / 255) ** 2,
        selection="ols",
    )
    # A few known pixels can make missing ones very large: all pixels are in [0, 1].
    whole = jnp.clip(decode(code, dictionary) + means, 0, 1)
    weights = count[..., 0] > 0
    filled = average_patches(whole, mask.shape, patch_size=PATCH, weights=weights)
    return np.where(mask > 0, damaged, filled)


# %% [markdown]
# PSNR of the missing pixels in dB, on pictures of 192x192 pixels. *Biharmonic* is scikit-image's
# method, the solution of the biharmonic equation.

# %%
found = []
for missing in MISSING:
    for name, original in tests.items():
        for seed in range(SEEDS):
            original = middle(original, SMALL_SIDE)
            mask = np.random.default_rng(seed).random(original.shape) >= missing
            mask = np.float32(mask)
            damaged = original * mask
            restored = {
                "damaged": damaged,
                "biharmonic": inpaint_biharmonic(damaged[..., 0], mask[..., 0] == 0)[..., None],
                "DCT": inpaint(damaged, mask, dct),
                "photographs": inpaint(damaged, mask, learned),
            }
            values = {method: psnr(x, original, mask == 0) for method, x in restored.items()}
            found.append((f"{missing:.0%}", name, values))
print_table("missing", found)

# %%
draw(restored, original, mask == 0)

# %% [markdown]
# ## References
#
# - M. Elad and M. Aharon, Image denoising via sparse and redundant representations over learned
#   dictionaries, 2006.
# - J. Mairal, M. Elad and G. Sapiro, Sparse representation for color image restoration, 2008.
