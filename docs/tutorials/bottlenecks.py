# %% [markdown]
# # Compare bottlenecks at equal rate
#
# A bottleneck with more bits gives better pictures, so comparing at equal numbers of atoms is not
# fair: 8 atoms of 512 with 16-bit coefficients cost 185 bits a latent, one entry of VQ costs 9.
# This tutorial trains autoencoders that differ in their bottleneck only, measures the bits of their
# codes, and draws quality against bits. The runs are short, so the numbers are low for all of them.

# %%
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import laser_jax
from configs import vqvae_photos
from laser_jax.data import open_split
from laser_jax.training.loop import train

STEPS = 300
HIDDENS = 32  # channels of the encoder and decoder
WINDOWS = 1024  # of the test split, that are coded
TABLE_IMAGES = 4096  # windows of the training split, for the model of bits
workdir = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## The runs
#
# Everything but the bottleneck is equal: network, data, seed, steps. `rate_distortion` is the
# sparse code that takes as many atoms as are worth their bits: an atom must lower the squared
# error by `bit_price` for each of its bits. Its coefficients are multiples of `coefficient_step`.


# %%
def by_rate(price, patch_size):
    return dict(
        bottleneck="ksvd",
        sparse_coder="rate_distortion",
        sparsity_level=16,
        bit_price=price,
        coefficient_step=2.5 * price**0.5,
        patch_size=patch_size,
        ksvd_method="approximate",
    )


RUNS = {
    "VQ, 512 entries": dict(bottleneck="vq", num_embeddings=512),
    "FSQ, 8x5x5x5": dict(bottleneck="fsq"),
    "residual VQ, 2 x 256": dict(bottleneck="rvq", num_embeddings=512, num_stages=2),
    "sparse, price 0.03": by_rate(0.03, 1),
    "sparse, patches of 2x2, price 0.2": by_rate(0.2, 2),
    "sparse, patches of 2x2, price 0.04": by_rate(0.04, 2),
}
runs = {}
for i, (name, model) in enumerate(RUNS.items()):
    config = vqvae_photos.get_config()
    config.num_train_steps = config.eval_every_steps = config.checkpoint_every_steps = STEPS
    config.optimizer.warmup_steps = STEPS // 10
    config.eval.table_images = TABLE_IMAGES
    config.model.num_hiddens = HIDDENS
    config.model.update(model)
    train(config, workdir / str(i))
    runs[name] = laser_jax.load(workdir / str(i))
print(len(runs), "runs of", STEPS, "steps")

# %% [markdown]
# ## Bits
#
# Tokens are a code as integers: an entry, entries of stages, a value of each channel, or atoms and
# their coefficients in steps. At its end each run fitted a probability model of its tokens to
# training images; it sees the neighbouring codes. The bits of test images under it are the size
# of [compressed files](../compression.md) to 0.1%. (The fixed-length rate, `bits_per_pixel_fixed`
# in `evaluation.json`, is larger: it uses neither the neighbours nor the frequencies of the
# entries.)


# %%
def sample(trained, split):
    source = open_split(trained.config.data, split)
    places = np.random.default_rng(0).choice(len(source), min(WINDOWS, len(source)), replace=False)
    return np.stack([source[int(place)] for place in places])


def measure(trained):
    """Bits a pixel and PSNR in dB of test images."""
    images = sample(trained, "test")
    tokens = trained.encode_to_tokens(images)
    bits = np.sum(trained.codec.tables.bits(tokens))
    squared = np.mean((trained.decode_from_tokens(tokens) - images / 255) ** 2)
    return bits / images[..., 0].size, -10 * np.log10(squared)


points = {name: measure(trained) for name, trained in runs.items()}
print(f"{'bottleneck':36}bits a pixel    PSNR")
for name, (rate, psnr) in points.items():
    print(f"{name:36}{rate:12.2f}{psnr:8.2f} dB")

# %%
figure, axis = plt.subplots(figsize=(8, 4.2))
for (name, (rate, psnr)), marker in zip(points.items(), "osD^v<", strict=True):
    color = "tab:red" if name.startswith("sparse") else "tab:blue"
    axis.plot(rate, psnr, marker, color=color, label=name)
axis.set(xlabel="bits a pixel", ylabel="PSNR of test windows, dB")
axis.grid(alpha=0.3)
axis.legend(fontsize=8, loc="lower right")
figure.tight_layout()
plt.show()

# %% [markdown]
# Points further left need fewer bits, points further up have better quality. Compare points with
# about the same rate. A patch of 2x2 latents as one signal pays once for the choice of its atoms,
# so the sparse code gains most there. [Results](../results.md#autoencoders-at-true-rates) has the
# same comparison with longer training, more codes, JPEG and WebP.
#
# ## Pictures

# %%
images = sample(runs["VQ, 512 entries"], "test")[:10]
shown = {"original": images / 255} | {name: run.reconstruct(images) for name, run in runs.items()}
figure, axes = plt.subplots(len(shown), 1, figsize=(9, 6.2))
for axis, (name, row) in zip(axes, shown.items(), strict=True):
    axis.imshow(np.concatenate(list(row), axis=1))
    axis.set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center", fontsize=8)
    axis.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()
