"""Dictionary learning from a stream: our learner beside scikit-learn's in equal time."""

import time
import warnings

import jax
import numpy as np

from benchmarks.memory import resident
from benchmarks.problems import PROBLEMS, size_name
from benchmarks.timing import installed, number, print_table
from laser_jax.sparse import DictionaryLearner, omp

SIZES = ((16, 64, 4, 32768), (64, 256, 6, 32768), (144, 512, 8, 32768))  # d, m, k, n
BATCH = 1024
SECONDS = 20  # that each learns
ALPHAS = (0.01, 0.03, 0.1, 0.3)  # scikit-learn's penalty: the best of these by held-out error


def streaming_table(options):
    """Prints held-out errors under `omp` of both, and by how much our memory grows."""
    rows = []
    for d, m, k, n in SIZES:
        signals, _ = PROBLEMS[options.kind](d, m, n + 4096)
        train, test = signals[:-4096], signals[-4096:]
        ours = _Ours(m, k, train[:BATCH])
        others = [ScikitLearn(m, a) for a in ALPHAS] if installed("sklearn") else []
        rng, before = np.random.default_rng(0), None
        while ours.seconds < SECONDS:
            batch = train[rng.integers(n, size=BATCH)]
            ours.advance(batch)
            for other in others:
                other.advance(batch, until=ours.seconds)
            before = before or resident("VmRSS")
        energy = np.sum(test**2)
        errors = [squared_error_left(x.atoms(), test, k) / energy for x in (ours, *others)]
        best = min(range(len(others)), key=lambda i: errors[1 + i], default=None)
        rows.append([
            size_name((d, m, k, n)), ours.learned, f"{100 * errors[0]:.2f}%",
            "" if best is None else f"{100 * errors[1 + best]:.2f}%",
            "" if best is None else f"{errors[0] / errors[1 + best]:.3f}",
            "" if best is None else f"{others[best].learned} (alpha {ALPHAS[best]})",
            number((resident("VmRSS") - before) / 2**20),
        ])  # fmt: skip
    print_table(
        f"Learning from a stream of {options.signals}, {SECONDS} seconds each",
        ["d, m, k, n", "signals", "DictionaryLearner, error held out", "scikit-learn", "ours / its",
         "signals it learned from", "memory of all grew, MB"],
        rows,
    )  # fmt: skip


def squared_error_left(atoms, test, k):
    """The squared error of the test signals' codes."""
    norms = np.linalg.norm(atoms, axis=-1, keepdims=True)
    atoms = np.float32(atoms / np.where(norms > 0, norms, 1))
    code = omp(test, atoms, sparsity=k)
    approximation = np.einsum("nk,nkd->nd", code.coefficients, atoms[code.indices])
    return np.sum((test - approximation) ** 2)


class _Ours:
    def __init__(self, num_atoms, sparsity, first):
        self.seconds, self.learned = 0.0, 0
        self._learner = DictionaryLearner(num_atoms, sparsity, batch_size=BATCH)
        start = self._learner.init(jax.random.key(0), first)
        jax.block_until_ready(self._learner.update(start, first))  # compiles
        self._state = self._learner.init(jax.random.key(0), first)

    def advance(self, batch):
        start = time.perf_counter()
        self._state = jax.block_until_ready(self._learner.update(self._state, batch))
        self.seconds += time.perf_counter() - start
        self.learned += len(batch)

    def atoms(self):
        return np.asarray(self._state.dictionary)


class ScikitLearn:
    """In batches of its default size, as many as fit in our time; there is always one."""

    def __init__(self, num_atoms, alpha, start=None):
        from sklearn.decomposition import MiniBatchDictionaryLearning

        self.seconds, self.learned = 0.0, 0
        self._model = MiniBatchDictionaryLearning(
            num_atoms, alpha=alpha, fit_algorithm="cd", random_state=0, dict_init=start
        )

    def advance(self, batch, until):
        for part in np.array_split(batch, len(batch) // 256):
            if self.seconds >= until:
                return
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about convergence
                self._model.partial_fit(part)
            self.seconds += time.perf_counter() - start
            self.learned += len(part)

    def atoms(self):
        return self._model.components_
