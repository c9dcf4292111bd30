"""Methods that learn a dictionary, one step each in turn: on patches and inside autoencoders.

All of one seed start from the same, see the same data and share the machine's moods, so that their
errors and their seconds compare.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import default, ksvd_photos
from experiments.photographs import photographs, random_patches, square_images
from experiments.timing import seconds_of
from laser_jax.data import open_split
from laser_jax.evaluation.split import evaluate_split, make_eval_step
from laser_jax.models import DictionaryLearning
from laser_jax.sharding import data_mesh, put_batch
from laser_jax.sparse import coherence, decode, omp, usage
from laser_jax.training.loop import batches
from laser_jax.training.optimizer import build_optimizer
from laser_jax.training.setup import Setup
from laser_jax.training.state import init_dictionary, initial_state
from laser_jax.training.step import TrainStep

PATCH = 8


class Curves(NamedTuple):
    """The results of one method at its evaluated steps, `(seeds, looks)` each.

    Attributes:
      step: `(looks,)` steps made.
      seconds: they took, compilation and looks apart.
      quality: alone the squared error of held-out patches as a share of their energy, in an
        autoencoder the PSNR of test windows, dB, of the pooled squared error.
      used: share of the atoms that those use.
      mean_coherence, max_coherence: over atoms, of the largest |cosine| with another.
    """

    step: np.ndarray
    seconds: np.ndarray
    quality: np.ndarray
    used: np.ndarray
    mean_coherence: np.ndarray
    max_coherence: np.ndarray

    @property
    def milliseconds(self):
        """`(seeds,)` a step, the mean of all."""
        return 1e3 * self.seconds[:, -1] / self.step[-1]


def stacked(points, names):
    """Returns name -> `Curves` of what `learn_in_turn` returned for each seed."""
    return {
        name: Curves(
            points[0]["step"],
            *(np.stack([point[field][i] for point in points]) for field in Curves._fields[1:]),
        )
        for i, name in enumerate(names)
    }


def learn_in_turn(learners, stream, looks):
    """Returns the fields of `Curves` by name, the first axis that of the learners.

    Args:
      learners: each has `advance(batch)`, which waits until it is done, and `look()`, which
        returns `Curves`' quality, used, mean_coherence and max_coherence.
      stream: iterable of batches; each goes to all learners.
      looks: rising numbers of steps after which to look; the last is that of all steps.
    """
    seconds, found = np.zeros(len(learners)), []
    turns = np.arange(len(learners))
    for step, batch in zip(range(1, looks[-1] + 1), stream, strict=False):
        for i in np.roll(turns, step):  # the order changes at every step
            seconds[i] += seconds_of(learners[i].advance, batch)
        if step in looks:
            found.append([[s, *x.look()] for s, x in zip(seconds, learners, strict=True)])
    columns = np.moveaxis(np.array(found), 0, -1)  # (learners, fields, looks)
    fields = {name: columns[:, i] for i, name in enumerate(Curves._fields[1:])}
    return {"step": looks, **fields}


# Alone, on patches.


@functools.cache
def gray_images(source, split):
    """Returns gray images `(H, W, 1)`: whole photographs, or images of a data set."""
    if source == "photographs":
        images = photographs(split).values()
    else:
        images = square_images(source, split=split, count=64, side=128)
    return [image.mean(-1, keepdims=True) for image in images]


def patches_of(source, split, count, seed):
    """Returns `(count, d)` patches at random places, their means taken away."""
    patches = random_patches(gray_images(source, split), PATCH, count, seed=seed)
    return jnp.asarray(patches - patches.mean(-1, keepdims=True))


def learn_patches(size, source, variants, steps, seed):
    """Learns from a stream of patches by each of the variants; see `learn_in_turn`.

    Args:
      size: has num_embeddings, sparsity_level, batch, held_out: patches a step and held out.
      source: of the images, as for `square_images`.
      variants: pairs of name and settings of `DictionaryLearning`.
      steps: of learning.
      seed: of everything.
    """
    first = patches_of(source, "train", 8 * size.num_embeddings, (seed, 0))
    held_out = patches_of(source, "test", size.held_out, 0)
    learners = [Alone(size, changes, steps, first, held_out, seed) for _, changes in variants]
    stream = (patches_of(source, "train", size.batch, (seed, 1 + t)) for t in range(steps))
    looks = np.unique(np.geomspace(1, steps, 10).round().astype(int))
    return learn_in_turn(learners, stream, looks)


class Alone:
    """A `DictionaryLearning` whose latents are patches, and laser_jax's optimizer of its atoms."""

    def __init__(self, size, changes, steps, first, held_out, seed):
        key = jax.random.key(seed)
        module = DictionaryLearning(
            num_embeddings=size.num_embeddings, embedding_dim=PATCH**2,
            sparsity_level=size.sparsity_level, update_every_steps=1, **changes,
        )  # fmt: skip
        latents, optimizer, opt_state = first[:, None, None, :], None, ()
        empty = module.init(key, latents)["dictionary"]
        dictionary = module.init_dictionary(empty, latents, key=key)
        if module.learns_by_gradient:
            optimizer = atoms_optimizer(module, steps)
            opt_state = optimizer.init(dictionary["atoms"])
        self._step = functools.partial(learn_step, key=key, module=module, optimizer=optimizer)
        self._held_out, self._sparsity = held_out, size.sparsity_level
        self._state = dictionary, opt_state, jnp.int32(1)
        jax.block_until_ready(self._step(*self._state, first[: size.batch]))  # compiles

    def advance(self, patches):
        self._state = jax.block_until_ready(self._step(*self._state, patches))

    def look(self):
        atoms = self._state[0]["atoms"]
        return [float(x) for x in judge(atoms, self._held_out, sparsity=self._sparsity)]


@functools.cache
def atoms_optimizer(module, steps):
    """Returns the optimizer of the atoms, its schedule as long as the learning."""
    config = default.get_config()
    config.num_train_steps, config.optimizer.warmup_steps = steps, steps // 10
    return build_optimizer(config, module).atoms


@functools.partial(jax.jit, static_argnames=("module", "optimizer"))
def learn_step(dictionary, opt_state, step, patches, *, key, module, optimizer):
    """Returns `(dictionary, opt_state, step)` after what a training step does to a dictionary."""
    latents = patches[:, None, None, :]

    def loss_and_code(atoms):
        output = module.apply({"dictionary": {**dictionary, "atoms": atoms}}, latents)
        return output.loss, output.code

    atoms = dictionary["atoms"]
    if module.learns_by_gradient:
        grads, code = jax.grad(loss_and_code, has_aux=True)(atoms)
        updates, opt_state = optimizer.update(grads, opt_state)
        atoms = optax.apply_updates(atoms, updates)
    else:
        _, code = loss_and_code(atoms)
    key = jax.random.fold_in(key, step)
    new = module.adapt({**dictionary, "atoms": atoms}, latents, code, step=step, key=key)
    return new, opt_state, step + 1


@functools.partial(jax.jit, static_argnames="sparsity")
def judge(atoms, patches, *, sparsity):
    """Returns the share of the patches' energy left, atoms used, mean and maximal coherence."""
    code = omp(patches, atoms, sparsity=sparsity)
    error = jnp.sum((patches - decode(code, atoms)) ** 2) / jnp.sum(patches**2)
    nearest = coherence(atoms)
    used = jnp.mean(usage(code, atoms.shape[0]) > 0)
    return error, used, jnp.mean(nearest), jnp.max(nearest)


# Inside autoencoders.


def learn_latents(size, variants, seed):
    """Trains an autoencoder with each of the variants; see `learn_in_turn`.

    Args:
      size: has run_steps, num_hiddens, test_every: one of so many test windows is looked at.
      variants: pairs of name and settings of `config.model`.
      seed: of everything.
    """
    configs = [run_config(size, changes, seed) for _, changes in variants]
    data = configs[0].data
    train, test = (open_split(data, split) for split in ("train", "test"))
    test = [test[i] for i in range(0, len(test), size.test_every)]
    mesh = data_mesh()
    learners = [InAutoencoder(config, train, test, mesh) for config in configs]
    # All of them read before: a thread that reads on would slow whoever's turn it is.
    stream = [
        put_batch(batch, mesh)
        for batch in itertools.islice(batches(configs[0], train, 0), size.run_steps)
    ]
    looks = np.unique(np.linspace(0, size.run_steps, 7).round().astype(int))[1:]
    return learn_in_turn(learners, stream, looks)


def run_config(size, changes, seed):
    """Returns `configs/ksvd_photos.py` made small and changed."""
    config = ksvd_photos.get_config()
    config.seed, config.num_train_steps = seed, size.run_steps
    config.optimizer.warmup_steps = size.run_steps // 10
    config.model.num_hiddens = size.num_hiddens
    config.model.update(changes)
    return config


class InAutoencoder:
    """What `laser_jax.training.loop` does, step by step, and its evaluation."""

    def __init__(self, config, train, test, mesh):
        setup = Setup.from_config(config, mesh)
        self._step, state = TrainStep(setup), initial_state(setup)
        self._state = init_dictionary(setup, state, batches(config, train, 0))
        first = put_batch(next(batches(config, train, 0)), mesh)
        copy = jax.tree.map(jnp.copy, self._state)  # the step takes its state's memory over
        jax.block_until_ready(self._step(copy, first))  # compiles
        self._evaluate = functools.partial(
            evaluate_split, make_eval_step(setup.model, setup.image_loss), setup.model,
            source=test, mesh=mesh, config=config,
        )  # fmt: skip

    def advance(self, images):
        self._state, *_ = jax.block_until_ready(self._step(self._state, images))

    def look(self):
        found = self._evaluate(self._state.eval_variables())
        nearest = coherence(self._state.dictionary["atoms"])
        used = found["dictionary_usage"]
        return [found["psnr_pooled"], used, float(jnp.mean(nearest)), float(jnp.max(nearest))]
