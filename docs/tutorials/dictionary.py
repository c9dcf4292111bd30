# %% [markdown]
# # Learn a dictionary on photographs
#
# A dictionary is a set of atoms, here small colour pictures. A patch of a photograph is
# approximated by a weighted sum of a few of them. This tutorial learns a dictionary with K-SVD,
# shows its atoms, and codes a photograph that was not used for learning. It needs
# `laser_jax.sparse`, matplotlib, and scikit-image and scikit-learn for the photographs inside them.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph
from laser_jax.figures import atom_sheet
from laser_jax.sparse import (
    average_patches,
    coherence,
    decode,
    extract_patches,
    fit_dictionary,
    init_from_signals,
    omp,
    usage,
)

PATCH = 8  # side of a patch, pixels
PATCHES = 20_000  # to learn from
ATOMS = 256
SPARSITY = 6  # atoms a patch
ITERATIONS = 20

# %% [markdown]
# ## Signals
#
# Signals are rows. `extract_patches` turns an image `(H, W, 3)` into rows of 8 x 8 x 3 = 192
# numbers. Learning needs a sample of them. The mean colour of a patch is subtracted: every patch
# has one, so it is stored beside the code instead of learned.


# %%
def photograph(name):
    return np.float32(read_photograph(name)) / 255


def without_mean(patches):
    """Patches less their mean colour, and these means."""
    pixels = patches.reshape(len(patches), -1, 3)
    means = pixels.mean(1, keepdims=True)
    return (pixels - means).reshape(patches.shape), means


rng = np.random.default_rng(0)
patches = np.concatenate(
    [
        rng.permutation(np.asarray(extract_patches(photograph(name), patch_size=PATCH, stride=3)))
        for name in PHOTOGRAPHS["train"]
    ]
)
signals, _ = without_mean(rng.permutation(patches)[:PATCHES])
print(PHOTOGRAPHS["train"], len(patches), "patches,", signals.shape, "signals")

# %% [markdown]
# ## Learning
#
# `fit_dictionary` starts with atoms that are signals. Each iteration codes all signals by
# orthogonal matching pursuit, improves atom after atom (`method="approximate"`: one power
# iteration instead of an SVD) and replaces atoms that are unused or nearly equal to another
# one.

# %%
fit = fit_dictionary(
    signals,
    num_atoms=ATOMS,
    sparsity=SPARSITY,
    method="approximate",
    iterations=ITERATIONS,
    key=jax.random.key(0),
)
energy = np.mean(np.sum(signals**2, -1))
errors = 100 * np.asarray(fit.errors) / energy
print(f"error: {errors[0]:.1f}% of the energy after 1 iteration, {errors[-1]:.1f}% at the end")
used = usage(fit.code, ATOMS)
print(
    f"{np.sum(used > 0)} of {ATOMS} atoms are used; coherence {coherence(fit.dictionary).max():.2f}"
)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), width_ratios=(1, 1.2))
left.plot(1 + np.arange(ITERATIONS), errors, marker="o", markersize=3)
left.set(xlabel="iteration", ylabel="squared error, % of the energy")
atoms = np.asarray(fit.dictionary)[np.argsort(-used)].reshape(-1, PATCH, PATCH, 3)
right.imshow(atom_sheet(0.5 + 0.5 * atoms / np.abs(atoms).max((1, 2, 3), keepdims=True)))
right.set_title("the atoms, most used first", fontsize=10)
right.axis("off")
figure.tight_layout()
plt.show()

# %% [markdown]
# Most atoms are edges and stripes in one direction, without colour, because neighbouring pixels of
# photographs differ in brightness more than in colour.
#
# ## A held-out photograph
#
# The held-out photograph is cut into a grid (`stride=PATCH`), coded, decoded and put together again
# by `average_patches`. For comparison it is also coded in the dictionary that `fit_dictionary`
# started from, 256 unchanged patches.

# %%
held_out = photograph("coffee")
grid = extract_patches(held_out, patch_size=PATCH, stride=PATCH)
rows, means = without_mean(grid)
dictionaries = {
    "patches": init_from_signals(signals, ATOMS, key=jax.random.key(0)),
    "learned": fit.dictionary,
}


def through(dictionary, sparsity):
    """The photograph as a few atoms a patch."""
    approximation = decode(omp(rows, dictionary, sparsity=sparsity), dictionary)
    whole = (approximation.reshape(len(rows), -1, 3) + means).reshape(rows.shape)
    return average_patches(whole, held_out.shape, patch_size=PATCH, stride=PATCH)


def psnr(image):
    return float(-10 * np.log10(np.mean((np.clip(image, 0, 1) - held_out) ** 2)))


print("atoms a patch   " + "".join(f"{name:>10}" for name in dictionaries))
for sparsity in (1, 2, 4, 8, 16):
    each = [psnr(through(dictionary, sparsity)) for dictionary in dictionaries.values()]
    print(f"{sparsity:13}   " + "".join(f"{value:7.2f} dB" for value in each))

# %%
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
shown = {"original": held_out} | {
    f"{k} atom{'s' * (k > 1)} a patch": through(fit.dictionary, k) for k in (1, 4, 16)
}
for axis, (title, image) in zip(axes, shown.items(), strict=True):
    axis.imshow(np.clip(image[120:280, 240:400], 0, 1))
    axis.set_title(title, fontsize=9)
    axis.axis("off")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## What next
#
# - `np.save("dictionary.npy", fit.dictionary)` stores it; `fit_dictionary(dictionary=...)`
#   continues from it.
# - A `tolerance` in `omp` lets a code end once its error is small enough, so flat patches cost
#   fewer atoms. [Denoise and inpaint](restoration.md) uses it.
# - [Sparse coding](../sparse.md) compares coders and dictionary updates.
