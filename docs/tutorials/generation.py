# %% [markdown]
# # Draw new digits
#
# A prior is a probability model of the tokens of a trained autoencoder: it gives the bits of a
# code, and it draws new codes. This tutorial trains an autoencoder and a class-conditional prior on
# the handwritten digits that come with scikit-learn, and measures what the prior has learned. It
# takes about 10 minutes on two free cores and downloads nothing.

# %%
import json
import pathlib
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.svm import SVC

import laser_jax
from configs import prior_digits, vqvae_digits
from laser_jax.data import open_split
from laser_jax.figures import atom_sheet
from laser_jax.training.loop import train

AUTOENCODER_STEPS = 600
PRIOR_STEPS = 2000
HIDDENS = 64
WIDTH = 128
SAMPLES = 1000
RUNS = tempfile.mkdtemp()

# %% [markdown]
# ## An autoencoder, and its prior
#
# The VQ-VAE turns a picture of 16x16 pixels into 4x4 tokens, each one of 128 entries of a codebook.
# The second run encodes each picture eight times, first unchanged and then with small shifts, and
# learns the tokens. The shell commands are
#
#     python main.py --config=configs/vqvae_digits.py \
#       --config.num_train_steps=600 --config.optimizer.warmup_steps=100
#     python main.py --config=configs/prior_digits.py --config.autoencoder=runs/vqvae_digits

# %%
config = vqvae_digits.get_config()
config.num_train_steps, config.model.num_hiddens = AUTOENCODER_STEPS, HIDDENS
config.optimizer.warmup_steps = AUTOENCODER_STEPS // 6
train(config, f"{RUNS}/vqvae_digits")

config = prior_digits.get_config()
config.autoencoder = f"{RUNS}/vqvae_digits"
config.num_train_steps, config.prior.width = PRIOR_STEPS, WIDTH
config.optimizer.warmup_steps = PRIOR_STEPS // 10
train(config, f"{RUNS}/prior_digits")

# %% [markdown]
# ## Bits
#
# The held-out bits show how well the prior predicts pictures that were not used for training. For
# comparison there are the bits of two models that are fitted in seconds: tables of how often each
# entry occurs, and the context model that compresses files, which sees four neighbours. A prior
# that memorises its pictures needs far fewer bits in training than on held-out pictures; watch this
# gap.

# %%
metrics = json.loads(pathlib.Path(RUNS, "prior_digits", "metrics.json").read_text())
for name, key in {
    "order-0 tables": "val/bits_per_pixel_order_0",
    "context model": "val/bits_per_pixel_context_model",
    "prior": "val/bits_per_pixel",
}.items():
    print(f"{name:<16}{metrics[key]:.3f} bits a pixel")
print(f"{'gap':<16}{metrics['val/gap_bits_per_token']:.3f} bits a token")

# %% [markdown]
# ## Samples
#
# `load` returns the prior with its autoencoder. `sample` draws tokens one after the other and
# decodes them. Each row below is a class.

# %%
prior = laser_jax.load(f"{RUNS}/prior_digits", checkpoint="best")
labels = np.repeat(np.arange(10), 10)
images = prior.sample(jax.random.key(0), 100, labels=labels)
plt.figure(figsize=(4, 4))
plt.imshow(atom_sheet(images))
plt.axis("off")
plt.show()

# %% [markdown]
# A classifier trained on real digits checks whether the samples show the right class. It is also
# applied to the test digits, which it was not trained on, and to their reconstructions, because the
# autoencoder limits the quality of the samples.


# %%
def pictures(split):
    """The images of a split as rows in [0, 1], and their classes."""
    source = open_split(prior.config.data, split)
    rows = np.stack([image.ravel() / 255 for image in source])
    return rows, np.array([source.label(i) for i in range(len(source))])


classifier = SVC(C=10).fit(*pictures("train"))
test, classes = pictures("test")
rebuilt = prior.codec.to_images(prior.encode_to_tokens(test.reshape(-1, 16, 16, 1)))
print(f"test digits          {classifier.score(test, classes):.1%}")
print(f"reconstructions      {classifier.score(rebuilt.reshape(test.shape), classes):.1%}")
labels = np.arange(SAMPLES) % 10
for temperature in (1.0, 0.8):
    drawn = prior.sample(jax.random.key(1), SAMPLES, labels=labels, temperature=temperature)
    score = classifier.score(drawn.reshape(SAMPLES, -1), labels)
    print(f"samples, T = {temperature:.1f}     {score:.1%}")

# %% [markdown]
# ## Fill in
#
# The prior also completes a picture. Here it keeps the upper half of a test digit and draws the
# lower half three times. The first block has eight test digits, the others their completions.

# %%
columns = [test[:8].reshape(-1, 16, 16, 1)]
tokens = prior.encode_to_tokens(columns[0])
known = np.zeros(tokens.counts.shape, bool)
known[:, :2] = True
for seed in range(3):
    key = jax.random.key(seed)
    columns.append(prior.sample(key, 8, labels=classes[:8], given=tokens, known=known))
plt.figure(figsize=(6, 3))
plt.imshow(np.concatenate([atom_sheet(x) for x in columns], 1))
plt.axis("off")
plt.show()

# %% [markdown]
# [Generation](../generation.md) describes the model, the run and the numbers on photographs.
