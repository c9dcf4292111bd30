"""Memory and time of `DictionaryLearner` on a long stream of synthetic signals.

    python -m benchmarks.long_stream [--signals=100000000]

Each signal is the sum of 4 of 128 atoms of width 32, with noise; signals are made as they are
learned. The program prints how many signals were learned, seconds of processor time (the making of
the signals included), resident memory, and how many of the atoms the dictionary has.
"""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.memory import resident
from laser_jax.sparse import DictionaryLearner

SIGNALS = flags.DEFINE_integer("signals", 10**8, "Signals in all.", lower_bound=1)
D, M, K, BATCH, NOISE = 32, 128, 4, 8192, 0.01
FOUND = 0.99  # |cosine| of an atom with the nearest one of the dictionary
REPORTS = 10


def stream(atoms, key):
    """Yields batches `(BATCH, d)` for ever, each a function of the key and its number."""

    @jax.jit
    def batch(number):
        support, values, noise = jax.random.split(jax.random.fold_in(key, number), 3)
        order = jax.random.uniform(support, (BATCH, M))
        indices = jax.lax.top_k(order, K)[1]
        coefficients = jax.random.normal(values, (BATCH, K))
        signals = jnp.einsum("bk,bkd->bd", coefficients, atoms[indices])
        return signals + NOISE * jax.random.normal(noise, signals.shape)

    for number in itertools.count():
        yield batch(number)


def found(dictionary, atoms):
    """The number of atoms that the dictionary has, up to sign."""
    cosines = np.abs(np.asarray(dictionary) @ np.asarray(atoms).T)
    return int(np.sum(cosines.max(0) > FOUND))


def main(_):
    atoms = jax.random.normal(jax.random.key(0), (M, D))
    atoms /= jnp.linalg.norm(atoms, axis=-1, keepdims=True)
    signals = stream(atoms, jax.random.key(1))
    learner = DictionaryLearner(M, K, batch_size=BATCH)
    state = learner.init(jax.random.key(2), next(signals))
    steps = -(-SIGNALS.value // BATCH)
    reports = {-(-steps * i // REPORTS) for i in range(1, REPORTS + 1)} | {-(-steps // 100)}
    start = time.process_time()
    print("| signals | seconds | resident memory, MB | atoms found |\n|---|---|---|---|")
    for step, batch in zip(range(1, steps + 1), signals, strict=False):
        state = learner.update(state, batch)
        if step in reports:
            jax.block_until_ready(state)
            print(f"| {step * BATCH:,} | {time.process_time() - start:.0f} | "
                  f"{resident('VmRSS') / 1e6:.0f} | {found(state.dictionary, atoms)} of {M} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    app.run(main)
