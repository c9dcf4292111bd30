"""Dictionaries for a network's activations, beside a sparse autoencoder trained by gradient.

    python -m experiments.activations

Vectors are relu4_3 of VGG16 on the training photographs. `DictionaryLearner` learns atoms for OMP;
a TopK autoencoder (`experiments/topk_autoencoder.py`) learns its encoder and decoder. Both are
evaluated on the test photographs, whole: explained variance, unused atoms, and what becomes of the
network's output where the code replaces the activations. Seconds are of the processor, all cores
together, so other programs on the machine do not count.
"""

import dataclasses
import functools
import logging
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from sklearn.decomposition import MiniBatchDictionaryLearning

from experiments import results, vgg_activations
from experiments.timing import machine
from experiments.topk_autoencoder import Trainer
from experiments.vgg_activations import Scaling, explained_variance, output_error
from laser_jax.pretrained.weights import load_lpips
from laser_jax.sparse import DictionaryLearner, decode, omp, usage

log = logging.getLogger("laser_jax")


class Case(NamedTuple):
    """Numbers of atoms, atoms a code, and steps of each TopK autoencoder that is trained."""

    num_atoms: int
    sparsity: int
    topk_steps: tuple


@dataclasses.dataclass(frozen=True)
class Size:
    """Numbers of an experiment; `learned_sparsity` is the most atoms a code while learning."""

    vectors: int
    scales: tuple
    cases: tuple[Case, ...]
    learned_sparsity: int
    learner_batch: int
    learner_steps: int
    replace_every: int  # steps, of unused atoms
    topk_batch: int
    topk_rate: float
    few_atoms: int  # what scikit-learn can do
    few_sparsities: tuple
    few_steps: int  # of `DictionaryLearner` with as many
    few_seconds: float  # of scikit-learn
    few_alphas: tuple
    uses: int  # of an atom, on average, in the training vectors that are searched for unused atoms


SIZES = {
    "small": Size(
        vectors=8192, scales=(0.25,), cases=(Case(512, 8, (64,)),), learned_sparsity=8,
        learner_batch=1024, learner_steps=16, replace_every=8, topk_batch=512, topk_rate=2e-3,
        few_atoms=128, few_sparsities=(8,), few_steps=16, few_seconds=4.0, few_alphas=(0.1,),
        uses=64,
    ),
    "full": Size(
        vectors=131_072, scales=(1, 0.7),
        cases=(
            Case(4096, 8, (256,)), Case(4096, 32, (256, 2048)), Case(4096, 64, (256,)),
            Case(16_384, 32, (256,)),
        ),
        learned_sparsity=16, learner_batch=2048, learner_steps=64, replace_every=8, topk_batch=1024,
        topk_rate=2e-3, few_atoms=512, few_sparsities=(8, 32, 64), few_steps=64,
        few_seconds=40.0, few_alphas=(0.03, 0.1), uses=128,
    ),
}  # fmt: skip
LEARNER, TOPK, MINIBATCH = "DictionaryLearner", "TopK autoencoder", "scikit-learn"
BLOCK = 1024  # vectors that are evaluated at a time


def run(out, size):
    """Trains and evaluates all methods, and adds the tables."""
    params = load_lpips("vgg")["VGG16_0"]
    settings = {"vectors": size.vectors, "scales": list(size.scales)}
    vectors = out.point(
        "vectors", settings,
        lambda: {"x": vgg_activations.training_vectors(
            params, size.vectors, scales=size.scales, seed=0)},
    )["x"]  # fmt: skip
    study(out, size, vectors, vgg_activations.maps(params, "test"), params)


def study(out, size, vectors, maps, params):
    """Trains on vectors `(n, 512)`, evaluates on maps, each `(h, w, 512)`, and adds the tables."""
    scaling = Scaling(vectors)
    vectors = np.float32(scaling(vectors))
    evaluate = functools.partial(_evaluate, vectors, scaling, maps, params)
    rows = [(case, _many_atoms(out, size, vectors, evaluate, case)) for case in size.cases]
    for case, found in rows:
        learner, *others = found.items()
        for name, topk in others:
            out.text(_verdict(case, learner[1], name, topk))
    out.table(
        "activations", ["atoms", *HEADER],
        [[f"{case.num_atoms:,}", case.sparsity, *_row(name, x)]
         for case, found in rows for name, x in found.items()],
        caption=f"{len(vectors):,} vectors.",
    )  # fmt: skip
    few = _few_atoms(out, size, vectors, evaluate)
    out.table(
        "few_atoms", HEADER, [[k, *_row(name, x)] for (k, name), x in few.items()],
        caption=f"{size.few_atoms:,} atoms, both coded by OMP.",
    )  # fmt: skip


HEADER = ["k", "method", "explained variance, %", "error of relu5_3, %", "unused atoms",
          "seconds of learning", "vectors learned from",
          "microseconds of coding a vector"]  # fmt: skip


def _row(name, found):
    return [
        name, f"{100 * found['explained']:.1f}", f"{100 * found['output_error']:.1f}",
        found["unused"], f"{found['seconds']:.0f}", f"{found['learned']:,}",
        f"{found['coding']:.0f}",
    ]  # fmt: skip


def _verdict(case, learner, name, topk):
    more = 100 * (learner["explained"] - topk["explained"])
    return (
        f"{case.num_atoms:,} atoms, k = {case.sparsity}: `DictionaryLearner` explains {more:+.1f} "
        f"points of variance beside the {name}, in {learner['seconds']:.0f} against "
        f"{topk['seconds']:.0f} seconds, with "
        f"{learner['unused']:,} and {topk['unused']:,} unused atoms; of the network's output it "
        f"leaves an error of {100 * learner['output_error']:.1f}% against "
        f"{100 * topk['output_error']:.1f}%."
    )


def _many_atoms(out, size, vectors, evaluate, case):
    """Returns name -> numbers of each method."""
    m, k, _ = case
    shared = {"n": len(vectors), "scales": list(size.scales), "m": m, "k": k}
    searched = min(size.uses * m // k, len(vectors))
    shared |= {"usage": searched} | machine()
    evaluate = functools.partial(evaluate, searched)
    learning = [
        min(k, size.learned_sparsity), size.learner_batch, size.learner_steps, size.replace_every,
    ]  # fmt: skip

    def by_learner():
        found = learn(vectors, m, *learning)
        return _learning(found) | evaluate(omp_coder(found["dictionary"], k))

    def by_topk(training):
        found = train_topk(vectors, m, k, *training)
        encode = functools.partial(found["trainer"].encode, found["params"])
        return _learning(found) | evaluate(encode)

    points = {LEARNER: out.point("learner", shared | {"learning": learning}, by_learner)}
    for steps in case.topk_steps:
        training = [size.topk_batch, steps, size.topk_rate]
        points[f"{TOPK}, {steps:,} steps"] = out.point(
            "topk", shared | {"training": training}, functools.partial(by_topk, training)
        )
    return points


def _few_atoms(out, size, vectors, evaluate):
    """Returns (k, name) -> numbers with as many atoms as scikit-learn can do."""
    shared = {"n": len(vectors), "scales": list(size.scales), "m": size.few_atoms}
    searched = min(size.uses * size.few_atoms // min(size.few_sparsities), len(vectors))
    shared |= {"sparsities": list(size.few_sparsities), "usage": searched} | machine()
    learning = [size.learned_sparsity, size.learner_batch, size.few_steps, size.replace_every]
    evaluate = functools.partial(evaluate, searched)

    def at_each_sparsity(found):
        each = {k: evaluate(omp_coder(found["dictionary"], k)) for k in size.few_sparsities}
        flat = {f"{k}_{name}": x for k, numbers in each.items() for name, x in numbers.items()}
        return _learning(found) | flat

    points = {
        LEARNER: out.point(
            "few_learner", shared | {"learning": learning},
            lambda: at_each_sparsity(learn(vectors, size.few_atoms, *learning)),
        ),
        **{
            f"{MINIBATCH}, alpha {alpha}": out.point(
                "few_minibatch", shared | {"alpha": alpha, "seconds": size.few_seconds},
                lambda alpha=alpha: at_each_sparsity(
                    learn_by_scikit(vectors, size.few_atoms, alpha, size.few_seconds)
                ),
            )
            for alpha in size.few_alphas
        },
    }  # fmt: skip
    return {
        (k, name): _learning(point)
        | {key.split("_", 1)[1]: x for key, x in point.items() if key.startswith(f"{k}_")}
        for k in size.few_sparsities
        for name, point in points.items()
    }


def _learning(found):
    return {name: found[name] for name in ("seconds", "learned")}


def _batches(vectors, size, steps):
    """Yields batches of vectors in their order, again from the start after the last whole one."""
    whole = len(vectors) // size
    for step in range(steps):
        start = step % whole * size
        yield jnp.asarray(vectors[start : start + size])


def timed(advance, state, batches):
    """Returns the last state and the processor's seconds of all steps but the first.

    The first step compiles; the time of all is that of the others times n / (n - 1).
    """
    steps, start = 0, 0.0
    for steps, batch in enumerate(batches, 1):
        state = advance(state, batch)
        if steps == 1:
            jax.block_until_ready(state)
            start = time.process_time()
    jax.block_until_ready(state)
    return state, (time.process_time() - start) * steps / max(steps - 1, 1)


def learn(vectors, num_atoms, sparsity, batch, steps, replace_every):
    """Returns the dictionary of a `DictionaryLearner`, its seconds, and how many vectors it saw."""
    learner = DictionaryLearner(
        num_atoms, sparsity, method="approximate", batch_size=batch, replace_every=replace_every
    )
    state = learner.init(jax.random.key(0), jnp.asarray(vectors[: 4 * num_atoms]))
    state, seconds = timed(learner.update, state, _batches(vectors, batch, steps))
    return {"dictionary": state.dictionary, "seconds": seconds, "learned": batch * steps}


def train_topk(vectors, num_atoms, sparsity, batch, steps, learning_rate):
    """Returns a trained TopK autoencoder's trainer and parameters, and its seconds."""
    trainer = Trainer(num_atoms, sparsity, steps, learning_rate=learning_rate)
    state = trainer.init(jax.random.key(0), vectors.shape[1])
    state, seconds = timed(trainer.step, state, _batches(vectors, batch, steps))
    learned = batch * steps
    return {"trainer": trainer, "params": state.params, "seconds": seconds, "learned": learned}


def learn_by_scikit(vectors, num_atoms, alpha, seconds):
    """Returns the dictionary that scikit-learn learns in so many seconds or a few more."""
    learner = MiniBatchDictionaryLearning(
        num_atoms, alpha=alpha, fit_algorithm="cd", batch_size=256, random_state=0,
        dict_init=vectors[:num_atoms] / np.linalg.norm(vectors[:num_atoms], axis=1)[:, None],
    )  # fmt: skip
    start, step = time.process_time(), 0
    while time.process_time() - start < seconds:
        place = step % (len(vectors) // 256) * 256
        learner.partial_fit(vectors[place : place + 256])
        step += 1
    dictionary = jnp.asarray(learner.components_, jnp.float32)
    seconds = time.process_time() - start
    return {"dictionary": dictionary, "seconds": seconds, "learned": 256 * step}


def omp_coder(dictionary, k):
    """Returns the function that codes vectors by OMP, to the results of `Trainer.encode`."""

    def code(vectors):
        found = omp(vectors, dictionary, sparsity=k)
        return decode(found, dictionary), usage(found, len(dictionary)) > 0

    return code


def _evaluate(training, scaling, maps, params, usage, code):
    """Returns the numbers of a coder, a function of vectors to approximation and use of atoms.

    An atom counts as unused if neither `usage` of the training vectors nor the maps use it.
    """
    training = training[:usage]
    used = False

    def approximate(vectors):
        nonlocal used
        found = np.empty_like(vectors)
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            # The last block is filled up with a vector of its own, so that all have one shape.
            approximation, own = code(np.pad(block, ((0, BLOCK - len(block)), (0, 0)), "edge"))
            found[start : start + BLOCK] = approximation[: len(block)]
            used = used | np.asarray(own)
        return found

    approximate(training[:1])  # compiles
    start = time.process_time()
    approximate(training)
    coding = 1e6 * (time.process_time() - start) / len(training)
    test = np.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])
    found = scaling.undo(approximate(np.float32(scaling(test))))
    ends = np.cumsum([x.shape[0] * x.shape[1] for x in maps])[:-1]
    pieces = [y.reshape(x.shape) for x, y in zip(maps, np.split(found, ends), strict=True)]
    return {
        "explained": explained_variance(test, found), "unused": int(np.sum(~used)),
        "coding": coding, "output_error": output_error(params, maps, pieces),
    }  # fmt: skip


if __name__ == "__main__":
    title = "Dictionaries for a network's activations"
    app.run(results.program("activations", title, run, SIZES))
